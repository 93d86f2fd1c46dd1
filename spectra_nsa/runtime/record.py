"""`export.json`: what an exported folder holds, and whether its files may be opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_nsa.core.cache import remembered_sha256
from spectra_nsa.core.checksums import check_manifest
from spectra_nsa.core.errors import SpectraError, unknown_name
from spectra_nsa.core.files import read_json
from spectra_nsa.heads.kinds import SPARSE_OUTPUTS

RECORD = "export.json"
TOKENIZER = "tokenizer.json"
QUERIES = "query_side"  # the folder of an inference-free model's query side
PREFERRED = (  # if none is named
    "onnx", "onnx-int8", "onnx-fp16", "onnx-int8-static", "onnx-int8-fast", "onnx-int4", "openvino",
)  # fmt: skip
AGAIN = "Export again, or copy the whole folder again."
_LOCATION = b"\x0a\x08location\x12"  # a key of external data in a serialized ONNX model, before the length of its value


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """How texts become token ids.

    Attributes:
        max_length: tokens after which texts are truncated.
        truncation_side, padding_side: ``"right"`` or ``"left"``.
        pad_id: the id of padding.
        prompts: prompt by name.
        default_prompt_name: the prompt that `encode` uses by default; ``None`` for none.
    """

    max_length: int
    truncation_side: str
    padding_side: str
    pad_id: int
    prompts: Mapping[str, str]
    default_prompt_name: str | None


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """One format in a folder.

    Attributes:
        folder: where it lies.
        name: its name, such as ``"onnx-int8"``.
        file: the path of its file.
        outputs: width of each output by name; 0 for one number.
        dim: the dimensions of `embedding`, or the number of terms of a sparse encoder.
        normalize: whether `embedding` has unit length.
        length: the length of all texts of a graph with fixed shapes; ``None`` for any.
        text: how texts become ids.
    """

    folder: Path
    name: str
    file: Path
    outputs: Mapping[str, int]
    dim: int
    normalize: bool
    length: int | None
    text: TextFacts

    @property
    def sparse(self) -> bool:
        """Whether it is the export of a sparse encoder."""
        return not self.outputs.keys().isdisjoint(SPARSE_OUTPUTS)


def is_export(folder: Path) -> bool:
    """Returns whether a folder holds exported formats."""
    return (folder / RECORD).is_file()


def read_export(folder: str | Path, name: str | None = None) -> ExportFacts:
    """Reads what a folder says of one of its formats, and checks its files without opening them.

    Args:
        folder: an exported folder.
        name: of the format; ``None`` for the most exact one that is there.

    Raises:
        UsageError: there is no such format in it.
        SpectraError: the folder is no export, or one of its files is missing, has another size, lies outside the folder
            or would read a file that does.
    """
    folder = Path(folder)
    if not is_export(folder):
        raise SpectraError(f"{folder} has no {RECORD}: export a model first, as in spectra export MODEL --to onnx.")
    record = check_manifest(read_json(folder / RECORD), str(folder / RECORD))
    try:
        formats, text = dict(record["formats"]), _text_facts(record["text"])
        chosen = next((at for at in PREFERRED if at in formats), None) if name is None else name
        if chosen is None or chosen not in formats:
            raise unknown_name("format", chosen, formats)
        facts = formats[chosen]
        found = ExportFacts(
            folder=folder,
            name=chosen,
            file=folder / facts["file"],
            outputs={output: _whole(width, 0) for output, width in facts["outputs"].items()},
            dim=_whole(facts["dim"], 1),
            normalize=bool(facts["normalize"]),
            length=None if facts["length"] is None else _whole(facts["length"], 1),
            text=text,
        )
    except SpectraError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise SpectraError(f"{folder / RECORD} is damaged: {type(error).__name__} {error}. Export again.") from error
    queries = [path for path in record["files"] if path.startswith(f"{QUERIES}/")]
    for path in (facts["file"], TOKENIZER, *queries):
        _check_file(folder, path, record["files"])
    if found.file.suffix == ".onnx":
        _check_external(folder, found.file, record["files"])
    return found


def _whole(value: Any, least: int) -> int:
    """Returns a whole number that is at least `least`, else raises `ValueError`."""
    if type(value) is not int or not least <= value < 2**31:
        raise ValueError(f"{value!r} is no whole number from {least}")
    return value


def _text_facts(values: Any) -> TextFacts:
    """Returns how texts become ids, else raises `TypeError` or `ValueError`."""
    facts = TextFacts(**values)
    _whole(facts.max_length, 1)
    _whole(facts.pad_id, 0)
    if {facts.truncation_side, facts.padding_side} - {"right", "left"}:
        raise ValueError("a side is neither right nor left")
    if not isinstance(facts.prompts, dict) or not all(isinstance(text, str) for text in facts.prompts.values()):
        raise TypeError("prompts are no texts by name")
    if facts.default_prompt_name is not None and facts.default_prompt_name not in facts.prompts:
        raise ValueError("there is no default prompt")
    return facts


def _check_file(folder: Path, name: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that a file is listed, is there in its size, and lies inside the folder, also behind links."""
    path = folder / name
    if name not in files:
        raise SpectraError(f"{folder / RECORD} does not list {name}, which it names: it is damaged. Export again.")
    if not path.is_file():
        raise SpectraError(f"{path} is missing. {AGAIN}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise SpectraError(f"{path} is a link to a file outside the folder, which is not opened.")
    if path.stat().st_size == files[name]["size"]:
        if remembered_sha256(path) != files[name]["sha256"]:
            raise SpectraError(f"{path} is not the file that was exported: it is damaged or of another export. {AGAIN}")
    else:
        raise SpectraError(
            f"{path} has {path.stat().st_size:,} bytes instead of {files[name]['size']:,}: it is damaged or not copied "
            f"completely. {AGAIN}"
        )


def _check_external(folder: Path, file: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that an ONNX file reads weights only from files that are listed and lie beside it."""
    content, at = file.read_bytes(), 0
    while (at := content.find(_LOCATION, at)) >= 0:
        at += len(_LOCATION)
        name = content[at + 1 : at + 1 + content[at]].decode("utf-8", errors="replace")
        path = (file.parent / name).as_posix().removeprefix(f"{folder.as_posix()}/")
        if path not in files:
            raise SpectraError(f"{file} would read weights from {name!r}, a file that it was not exported with.")
        _check_file(folder, path, files)
