"""`spectra data`: inspect a source of text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted

if TYPE_CHECKING:
    from spectra_nsa.text.rows import RetrievalSet, TextSet

app = typer.Typer(help="Inspect data before training on it.", no_args_is_help=True)
_MAX_WIDTH = 300  # characters of a value to show


@app.callback()
def data() -> None:
    """Inspect data before training on it."""


@app.command("preview")
def preview_command(
    source: Annotated[str, typer.Argument(help="A file, a folder, org/name:config:split or python:stdlib.")],
    columns: Annotated[str | None, typer.Option(help="The roles of columns: anchor=title,positive=body.")] = None,
    split: Annotated[str | None, typer.Option(help="The split of a folder or Hugging Face dataset.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of rows to read.")] = 10_000,
    rows: Annotated[int, typer.Option(min=0, help="The number of rows to show.")] = 5,
    against: Annotated[
        str | None, typer.Option(help="An evaluation source or BEIR folder to check for overlap.")
    ] = None,
    quarantine: Annotated[Path | None, typer.Option(help="A folder for the quarantined rows.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the rows, lengths, duplicates and quarantined rows of a source, and its overlap with an evaluation set.

    Example: spectra data preview pairs.csv --columns anchor=title,positive=body --against beir/
    """
    from spectra_nsa.text.columns import parse_columns
    from spectra_nsa.text.preview import preview
    from spectra_nsa.text.sources import load_source

    start = time.perf_counter()
    mapping = None if columns is None else parse_columns(columns)
    texts = load_source(source, columns=mapping, split=split, limit=limit, quarantine=quarantine)
    facts = preview(texts, rows=rows, against=None if against is None else _evaluation_set(against, mapping))
    if as_json:
        print_json(_document(source, facts, time.perf_counter() - start))
    else:
        _show(source, facts, limit)


@app.command("nli")
def nli_command(
    source: Annotated[str, typer.Argument(help="Rows of premise, hypothesis and class: a file or a Hub dataset.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the triplets here: .jsonl.")],
    columns: Annotated[
        str | None, typer.Option(help="The roles of columns: sentence1=premise,sentence2=hypothesis,label=class.")
    ] = None,
    entailment: Annotated[str | None, typer.Option(help="The class of entailment, by default entailment or 0.")] = None,
    contradiction: Annotated[
        str | None, typer.Option(help="The class of contradiction, by default contradiction or 2.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split of a folder or Hugging Face dataset.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The maximum number of rows to read.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make triplets of natural language inference: entailed sentences, with contradictions as hard negatives.

    Example: spectra data nli snli.jsonl --output triplets.jsonl
    """
    from spectra_nsa.text.columns import parse_columns
    from spectra_nsa.workflows.nli import nli_triplets

    facts = nli_triplets(
        source, output, columns=None if columns is None else parse_columns(columns), split=split, limit=limit,
        entailment=entailment, contradiction=contradiction,
    )  # fmt: skip
    if as_json:
        print_json({"schema": 1, "source": source, **facts})
        return
    print(f"{counted(facts['triplets'], 'triplet')} from {counted(facts['rows'], 'row')} → {facts['output']}")
    classes = f"entailment {facts['entailment']!r}, contradiction {facts['contradiction']!r}"
    if facts["assumed"]:
        classes += ", assumed because the dataset does not name its classes; check the example below"
    print(f"classes in column {facts['column']!r}: {classes} (--entailment and --contradiction choose others)")
    if facts["quarantined"]:
        print(f"{counted(facts['quarantined'], 'row')} quarantined: spectra data preview shows the first")
    if facts["premises_left_out"]:
        print(
            f"{counted(facts['premises_left_out'], 'premise')} left out: without an entailed or a contradicted sentence"
        )
    for role, text in facts["example"].items():
        print(f"  {role}: {_short(text, 100)}")


def _evaluation_set(source: str, columns: dict[str, str] | None) -> TextSet | RetrievalSet:
    from spectra_nsa.text.beir import is_beir, load_beir
    from spectra_nsa.text.shared_columns import SharedColumns

    return load_beir(source) if is_beir(source) else SharedColumns(columns).load(source)


def _document(source: str, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    from spectra_nsa.core.results import Result, results_document

    counts = {"rows": facts["rows"], "quarantined": facts["quarantined"], "duplicates": facts["duplicates"]["rows"]}
    if "overlap" in facts:
        counts["overlap"] = facts["overlap"]["rows_affected"]
    results = [
        Result(task="statistics", name=facts["name"], system="data", metric=metric, value=value, n=facts["rows"])
        for metric, value in counts.items()
    ]
    return results_document(results, model=None, seconds=seconds, source=source, **facts)


def _show(source: str, facts: dict[str, Any], limit: int) -> None:
    from rich.markup import escape

    from spectra_nsa.core.console import console
    from spectra_nsa.text.rows import kind_name

    out = console()
    more = " (the limit; raise --limit to read more)" if facts["rows"] == limit else ""
    out.print(f"[bold]{escape(source)}[/bold]: {kind_name(facts['kind'])}, {counted(facts['rows'], 'row')}{more}")
    for note in facts["notes"]:
        out.print(f"note: {escape(note)}")
    _show_lengths(facts)
    _show_problems(facts)
    for key in ("scores", "labels"):
        if key in facts:
            out.print(f"{key}: {facts[key]}")
    if "overlap" in facts:
        _show_overlap(facts["overlap"])
    for index, row in enumerate(facts["sample"], 1):
        out.print(f"[bold]row {index}[/bold]")
        for name, value in row.items():
            out.print(f"  [dim]{escape(name)}:[/dim] {escape(_short(value))}")


def _show_lengths(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from spectra_nsa.core.console import console

    table = Table("column", "unit", *(f"{name}" for name in ("min", "median", "mean", "p95", "max")), "repeated")
    for name, units in facts["lengths"].items():
        for index, (unit, values) in enumerate(units.items()):
            numbers = [f"{value:,.0f}" for value in values.values()]
            repeated = f"{facts['duplicates']['columns'][name]:,}"
            table.add_row("" if index else name, unit, *numbers, "" if index else repeated)
    console().print(table)
    if facts["duplicates"]["rows"]:
        console().print(f"rows that repeat an earlier row: {facts['duplicates']['rows']:,}")


def _show_problems(facts: dict[str, Any]) -> None:
    from rich.markup import escape

    from spectra_nsa.core.console import console

    if not facts["quarantined"]:
        return
    path = facts["quarantine_file"]
    saved = f", written to {escape(path)}" if path else " (write them to a file with --quarantine DIR)"
    console().print(f"[yellow]{facts['quarantined']:,} quarantined[/yellow]{saved}. The first:")
    for problem in facts["problems"]:
        column = f", column {problem['column']}" if problem["column"] else ""
        console().print(f"  {escape(problem['file'])}:{problem['line']}{escape(column)}: {escape(problem['reason'])}")


def _show_overlap(overlap: dict[str, Any]) -> None:
    from rich.markup import escape

    from spectra_nsa.core.console import console

    affected = f"{overlap['rows_affected']:,} of {counted(overlap['rows'], 'row')}"
    console().print(f"overlap with {escape(overlap['against'])} (similarity ≥ {overlap['threshold']}): {affected}")
    if overlap["quarantined"]:
        console().print(f"  {counted(overlap['quarantined'], 'row')} of it quarantined")
    for note in overlap["notes"]:
        console().print(f"  note: {escape(note)}")
    for column, counts in overlap["columns"].items():
        example = f", for example: {escape(_short(counts['example'], 80))}" if counts["example"] else ""
        console().print(f"  {escape(column)}: {counts['exact']:,} exact, {counts['near']:,} exact or near{example}")


def _short(value: Any, width: int = _MAX_WIDTH) -> str:
    text = " ⏎ ".join(str(value).splitlines())
    return text if len(text) <= width else text[: width - 1] + "…"
