"""`spectra export`: a model in a format that other programs run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spectra_nsa.core.console import console, print_json
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import read_json_object


def export_command(
    model: Annotated[str, typer.Argument(help="The folder of a saved model, or a BERT-architecture checkpoint.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="Comma-separated formats: onnx, onnx-int8 (small, nearly exact), onnx-int8-fast (8-bit states too), "
            "onnx-int8-static (for NPUs), onnx-fp16, onnx-int4, openvino, torch-export, torchscript, or "
            "sentence-transformers (plain BERT, alone).",
        ),
    ] = "onnx",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write (default: MODEL, beside its files).")
    ] = None,
    outputs: Annotated[
        str | None, typer.Option(help="Comma-separated outputs (default: all that the model has and that were fitted).")
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Keep this many leading dimensions of the vectors.")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Of a sparse encoder: also list this many strongest terms (default 256).")
    ] = None,
    seq_len: Annotated[
        int | None,
        typer.Option(min=3, help="One text of exactly this many tokens at a time, for devices with fixed shapes."),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Make onnx-int8 onnx-int8-fast: a vector then depends on its batch.")
    ] = False,
    texts: Annotated[str, typer.Option(help="A source of pairs to check each format with.")] = "python:stdlib",
    least_cosine: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accept a format whose vectors have this cosine to the model's at worst."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Show quality, size and speed of what was exported, and export nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all figures.")] = False,
) -> None:
    """Write a model as ONNX, OpenVINO or a torch program, with every output in one graph, and check it on real texts.

    Each format is compared with the model: vectors, codes and scores, a search, single texts against batches, and odd
    shapes. A format that is too far off is refused with the figure; the others say how far they are, in export.json.

    Example: spectra export runs/quickstart/model --to onnx,onnx-int8
    """
    if report:
        document = _read(output or Path(model))
        return print_json({"schema": 1, **document}) if as_json else _print(document)
    from spectra_nsa.workflows.export.run import export_model
    from spectra_nsa.workflows.export.subject import Wanted

    chosen = None if outputs is None else _words(outputs)
    wanted = Wanted(outputs=chosen, dim=dim, strongest=top_k, length=seq_len)
    formats = _formats(_words(to), fast)
    document = export_model(
        model, formats, output=output, wanted=wanted, texts=texts, least_cosine=least_cosine, say=_say
    )
    print_json({"schema": 1, "model": model, **document}) if as_json else _print(document)
    if document["refused"]:
        raise typer.Exit(1)


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _formats(names: list[str], fast: bool) -> list[str]:
    """Returns the names of the formats. Raises `UsageError` if --fast has nothing to apply to."""
    if fast and "onnx-int8" not in names:
        raise UsageError("--fast is for onnx-int8, which is not among the formats of --to.")
    return ["onnx-int8-fast" if fast and name == "onnx-int8" else name for name in names]


def _read(folder: Path) -> dict[str, Any]:
    """Returns what `export.json` says of the formats in a folder."""
    from spectra_nsa.runtime.record import RECORD, read_export

    if not folder.is_dir():
        raise SpectraError(f"{folder} does not exist.")
    formats = read_json_object(folder / RECORD).get("formats", {}) if read_export(folder) else {}
    return {"folder": str(folder), "formats": formats, "refused": {}, "notes": []}


def _print(document: dict[str, Any]) -> None:
    from rich.table import Column, Table

    table = Table(Column("format", no_wrap=True), "MB", "cosine", "at worst", "alone", "nDCG@10", "speed")
    for name, facts in document["formats"].items():
        checks = facts.get("checks")
        if checks is None:
            continue
        main, quality = next(iter(checks["outputs"].values())), checks["ndcg@10"]
        table.add_row(
            name,
            f"{facts['bytes'] / 1e6:.1f}",
            f"{main['cosine_mean']:.5f}",
            f"{main['cosine_min']:.5f}",
            f"{checks['alone']['cosine_min']:.5f}",
            f"{quality['export']:.3f} ({quality['export'] - quality['model']:+.3f})",
            f"{checks['model_seconds'] / max(checks['seconds'], 1e-9):.2f}",
        )
    out = console()
    if table.row_count:
        out.print(table)
        out.print(
            "cosine: of the vectors to the model's. alone: of a text in a batch to the same text alone, at worst. "
            "speed: CPU time of the model by that of the export, on the texts of the check.",
            style="dim",
        )
    for reason in document["refused"].values():
        out.print(reason, markup=False)
    for note in document["notes"]:
        out.print(f"note: {note}", markup=False)
    print(f"export: {document['folder']}")
