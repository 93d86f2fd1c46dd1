"""The files of an export: a graph in each format, the tokenizer beside it, and `export.json`."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectra_nsa.core.checksums import SCHEMA, describe
from spectra_nsa.core.files import read_json_object, write_json
from spectra_nsa.core.results import versions
from spectra_nsa.export.formats import FORMATS
from spectra_nsa.export.graph import Graph
from spectra_nsa.models.checks import has_weights
from spectra_nsa.runtime.record import QUERIES, RECORD, TOKENIZER, is_export

_TEXT_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json")


def write_graph(
    graph: Graph,
    name: str,
    folder: Path,
    *,
    length: int | None,
    traced: dict[str, Any],
    samples: Callable[[], Sequence[Mapping[str, Any]]],
) -> Path:
    """Writes a graph in a format.

    Args:
        graph: the model.
        name: of the format.
        folder: of the export.
        length: the fixed length; ``None`` for any.
        traced: ONNX graphs that were made already, by kind; is added to.
        samples: makes inputs of the graph, on which ranges of its states are found.

    Returns:
        the file.
    """
    path = folder / FORMATS[name].file
    path.parent.mkdir(parents=True, exist_ok=True)
    if FORMATS[name].kind == "torch":
        from spectra_nsa.export.torch_graph import save_program, save_script

        (save_program if name == "torch-export" else save_script)(graph, path, length=length)
        return path
    from spectra_nsa.export import onnx_graph, onnx_weights

    if not traced:
        traced["plain"] = onnx_graph.trace(graph, length=length)
    if name == "openvino":
        from spectra_nsa.export.openvino_graph import save_openvino

        with tempfile.TemporaryDirectory() as temporary:
            onnx_graph.save(traced["plain"], Path(temporary) / "model.onnx")
            save_openvino(Path(temporary) / "model.onnx", path)
        return path
    if name == "onnx-int8-static":  # fused operators are not of other runtimes
        onnx_graph.save(traced["plain"], path)
        _shrink(path, lambda model: onnx_weights.int8_static(model, samples()))
        return path
    if "fused" not in traced:
        traced["fused"] = onnx_graph.fused(traced["plain"])
    onnx_graph.save(traced["fused"], path)
    smaller: Mapping[str, Callable[[Any], Any]] = {
        "onnx-fp16": onnx_weights.fp16,
        "onnx-int8": onnx_weights.int8,
        "onnx-int8-fast": onnx_weights.int8_fast,
        "onnx-int4": onnx_weights.int4,
    }
    if name in smaller:
        _shrink(path, smaller[name])
    return path


def _shrink(path: Path, smaller: Callable[[Any], Any]) -> None:
    """Replaces the weights of an ONNX file by smaller ones."""
    import onnx

    onnx.save(smaller(onnx.load(path)), path)


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Writes a tokenizer's files, unless the folder has them."""
    if not (folder / TOKENIZER).is_file():
        tokenizer.save_pretrained(str(folder))


def drop_stale(folder: Path, sha256: str) -> list[str]:
    """Deletes the exports in a folder that were made from other weights, and returns their names.

    Only files that `spectra export` writes are deleted, whatever the record names. Tokenizer and `config.json` go too
    if the folder has exports alone; beside weights they are the model's.

    Args:
        folder: of the export.
        sha256: of the model as it is now.
    """
    before = read_json_object(folder / RECORD) if is_export(folder) else {}
    if not before or before.get("model_sha256") == sha256:
        return []
    stale = [name for name in FORMATS if name in before.get("formats", {})]
    graphs = [path for name in stale for path in _files_of(folder / FORMATS[name].file)]
    shared = [] if has_weights(folder) else [folder / name for name in (*_TEXT_FILES, "config.json")]
    for path in [*graphs, *(folder / QUERIES).glob("*"), *shared]:
        if path.parent.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)
    (folder / RECORD).unlink()
    return stale


def _files_of(path: Path) -> list[Path]:
    """Returns the files of a graph that are there: itself, and its weights if they are apart."""
    beside = [path, path.with_name(f"{path.name}_data"), path.with_suffix(".bin")]
    return [other for other in beside if other.is_file()]


def _described(folder: Path, name: str, before: Mapping[str, Any], written: set[Path]) -> Mapping[str, Any]:
    """Returns size and checksum of a file: those that it had when it was written, should it be damaged since."""
    known: Mapping[str, Mapping[str, Any]] = before.get("files", {})
    return known[name] if name in known and folder / name not in written else describe(folder / name)


def write_record(folder: Path, model: Mapping[str, str], text: Mapping[str, Any], formats: Mapping[str, Any]) -> None:
    """Writes `export.json`, or adds formats to it.

    Args:
        folder: of the export.
        model: `model` and `model_sha256`: what was exported, as the user named it.
        text: from `text_facts`.
        formats: what to say of each by name, see `ExportFacts`.
    """
    before = read_json_object(folder / RECORD) if is_export(folder) else {}
    written = {path for facts in formats.values() for path in _files_of(folder / facts["file"])}
    formats = {**before.get("formats", {}), **formats}
    names = [name for name in _TEXT_FILES if (folder / name).is_file()]
    for facts in formats.values():
        names += [path.relative_to(folder).as_posix() for path in _files_of(folder / facts["file"])]
    names += [path.relative_to(folder).as_posix() for path in sorted((folder / QUERIES).glob("*"))]
    write_json(
        folder / RECORD,
        {
            "schema": SCHEMA,
            **model,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "versions": versions(),
            "text": dict(text),
            "formats": formats,
            "files": {name: _described(folder, name, before, written) for name in dict.fromkeys(names)},
        },
    )
