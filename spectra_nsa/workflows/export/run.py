"""`spectra export`: writes a model in other formats, and keeps those that agree with it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.core.files import check_replaceable
from spectra_nsa.export.formats import FORMATS
from spectra_nsa.export.graph import Graph, choose_outputs
from spectra_nsa.models.checks import local_folder
from spectra_nsa.models.encoding.outputs import check_truncation
from spectra_nsa.models.open import ModelFolder, find_model, open_model
from spectra_nsa.runtime import Runtime
from spectra_nsa.runtime.record import RECORD, is_export
from spectra_nsa.workflows.export.check import SAME, Reference, check_shapes, compare, reference_of
from spectra_nsa.workflows.export.write import (
    format_facts,
    text_facts,
    write_graph,
    write_record,
    write_tokenizer,
)

PLAIN = "sentence-transformers"  # a folder of another kind: plain BERT
CHECK_TEXTS = "python:stdlib"
PAIRS = 100  # of the check


def export_model(
    model: str,
    formats: Sequence[str],
    *,
    output: str | Path | None = None,
    outputs: Sequence[str] | None = None,
    dim: int | None = None,
    seq_len: int | None = None,
    texts: str = CHECK_TEXTS,
    least_cosine: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Exports a model, and checks each format against it on real texts.

    Args:
        model: the folder or Hub name of a Spectra model or a BERT-architecture checkpoint.
        formats: names from `FORMATS`, or ``"sentence-transformers"`` alone.
        output: the folder; ``None`` adds the formats to the model's own.
        outputs: to export; ``None`` for all that the model has and that were fitted.
        dim: cuts `embedding` and `semantic`; ``None`` keeps all dimensions.
        seq_len: a graph for one text of exactly so many tokens at a time; ``None`` for any number and length.
        texts: a source of pairs to check with.
        least_cosine: the least cosine to the model's vectors that is accepted; ``None`` for the format's own.
        say: called with each line of progress.

    Returns:
        ``folder``, ``formats`` (by name: ``file``, ``bytes``, ``outputs``, ``dim``, ``length``, ``checks``) and
        ``notes``.

    Raises:
        UsageError: an option does not fit the model.
        SpectraError: the model cannot be opened, or a format is not close enough to it. Formats that were finished
            before stay.
    """
    names = _check_formats(formats)
    files = find_model(model)
    folder = _target(model, files, output)
    if names == [PLAIN]:
        return _plain(files, folder)
    opened = open_model(files)
    spec = opened.spec
    if spec.pooling_skips_prompt and any(opened.prompts.values()):
        raise SpectraError(f"{model} leaves its prompts out of pooling, which a graph of ids and mask cannot do.")
    check_truncation(dim, spec.projection_dim)
    _check_length(seq_len, opened.max_seq_length)
    opened.max_seq_length = seq_len or opened.max_seq_length  # longer texts are cut, in the reference too
    chosen, notes = choose_outputs(spec, outputs)
    reference = reference_of(opened, _pairs(texts), chosen)
    widths = {name: _width(value, name, dim) for name, value in reference.values.items()}
    graph = Graph(opened.spectra.eval(), chosen, dim)
    done: dict[str, Any] = {}
    traced: dict[str, Any] = {}
    for name in names:
        say(f"{name}: {FORMATS[name].says}")
        done[name] = _export(
            opened, graph, name, folder, model=model, length=seq_len, traced=traced, widths=widths,
            reference=reference, least=least_cosine,
        )  # fmt: skip
    return {"folder": str(folder), "formats": done, "notes": notes}


def _export(
    opened: Any,
    graph: Graph,
    name: str,
    folder: Path,
    *,
    model: str,
    length: int | None,
    traced: dict[str, Any],
    widths: dict[str, int],
    reference: Reference,
    least: float | None,
) -> dict[str, Any]:
    """Writes a format to a temporary folder, checks it there, and moves it to its place."""
    text = text_facts(opened)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export.") as temporary:
        draft = Path(temporary)
        write_tokenizer(opened, draft)
        path = write_graph(graph, name, draft, length=length, traced=traced)
        facts = format_facts(graph, path, draft, length=length, widths=widths)
        write_record(draft, model, text, {name: facts})
        checks = _checked(draft, name, graph, reference, least)
        facts |= {"bytes": sum(file.stat().st_size for file in path.parent.iterdir()), "checks": checks}
        for file in path.parent.iterdir():
            place = folder / path.parent.name / file.name
            place.parent.mkdir(exist_ok=True)
            file.replace(place)
        if not (folder / "tokenizer.json").is_file():
            for file in draft.glob("*.json"):
                if file.name != RECORD:
                    shutil.move(file, folder / file.name)
        write_record(folder, model, text, {name: facts})
    return facts


def _checked(draft: Path, name: str, graph: Graph, reference: Reference, least: float | None) -> dict[str, Any]:
    """Returns the figures of a format.

    Raises:
        SpectraError: it is too far from the model, or its vectors depend on the batch although they must not.
    """
    form = FORMATS[name]
    least = form.cosine if least is None else least
    engine = None
    if form.kind == "torch":
        from spectra_nsa.export.torch_graph import TorchEngine

        engine = TorchEngine(draft / form.file, graph.outputs)
    runtime = Runtime(draft, format=name, engine=engine)
    try:
        checks = compare(runtime, reference, graph.dim)
    except SpectraError:
        raise
    except Exception as error:  # of the library that runs it
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise SpectraError(f"{name} is refused: it does not run ({type(error).__name__}: {reason}).") from error
    worst = min(checks["outputs"].items(), key=lambda item: item[1].get("cosine_min", 1.0))
    cosine = worst[1].get("cosine_min", 1.0)
    quality = checks["ndcg@10"]
    if cosine < least:
        raise SpectraError(
            f"{name} is refused: the cosine of {worst[0]} to the model's is {cosine:.6f} at worst, below {least:g}. "
            f"nDCG@10 of {quality['pairs']} pairs is {quality['export']:.4f} instead of {quality['model']:.4f}. Take "
            "another format, or accept it with --least-cosine."
        )
    if form.invariant and checks["alone"]["cosine_min"] < min(SAME, least):
        raise SpectraError(
            f"{name} is refused: the cosine of a text's vector alone to that in a batch is "
            f"{checks['alone']['cosine_min']:.6f} at worst. Take another format."
        )
    check_shapes(runtime, graph, least)
    return checks


def _check_formats(formats: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(formats))
    if not names:
        raise UsageError(f"name a format: {', '.join((*FORMATS, PLAIN))}.")
    for name in names:
        if name not in (*FORMATS, PLAIN):
            raise unknown_name("format", name, (*FORMATS, PLAIN))
    if PLAIN in names and len(names) > 1:
        raise UsageError(f"{PLAIN} is a folder of another kind: export it alone, to a folder of its own.")
    return names


def _target(model: str, files: ModelFolder, output: str | Path | None) -> Path:
    """Returns the folder of the export, after checking that it may be written to."""
    if output is not None:
        folder = Path(output)
        if not is_export(folder) and local_folder(model) != folder:
            check_replaceable(folder, RECORD)
        return folder
    if files.kind != "spectra" or local_folder(model) is None:
        raise UsageError(f"{model} is no Spectra model's folder: name the folder of the export with --output.")
    return files.folder


def _plain(files: ModelFolder, folder: Path) -> dict[str, Any]:
    from spectra_nsa.export.bert import export_bert

    export_bert(open_model(files), folder)
    return {"folder": str(folder), "formats": {PLAIN: {"file": "."}}, "notes": []}


def _check_length(length: int | None, most: int) -> None:
    if length is not None and not 3 <= length <= most:
        raise UsageError(f"--seq-len must be from 3 to the model's {most} tokens, not {length}.")


def _pairs(source: str) -> list[tuple[str, str]]:
    """Returns pairs of a source, drawn at random; of plain texts each is its own pair."""
    from spectra_nsa.workflows.moe.texts import read_domains

    domains, _ = read_domains([f"texts={source}"], limit=PAIRS)
    queries = domains[0].queries or domains[0].documents
    return list(zip(queries, domains[0].documents, strict=True))


def _width(value: Any, name: str, dim: int | None) -> int:
    width = 0 if value.ndim == 1 else int(value.shape[1])
    return dim if dim is not None and name in ("embedding", "semantic") else width
