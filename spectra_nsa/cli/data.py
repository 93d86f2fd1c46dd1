"""`spectra data`: a look at a source of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from spectra_nsa.core.errors import UsageError

app = typer.Typer(help="Look at data before training on it.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at data before training on it."""


@app.command("preview")
def preview_command(
    source: Annotated[str, typer.Argument(help="A file, a folder, a Hugging Face set, or python:stdlib.")],
    columns: Annotated[str | None, typer.Option(help="What columns are: anchor=title,positive=body.")] = None,
    split: Annotated[str | None, typer.Option(help="The split of a Hugging Face set.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Read at most so many rows.")] = 10_000,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show.")] = 3,
    against: Annotated[str | None, typer.Option(help="An evaluation source or BEIR folder to look for in it.")] = None,
    quarantine: Annotated[Path | None, typer.Option(help="Folder for the broken rows.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a source holds: rows, lengths, duplicates, broken rows, overlap with an evaluation set.

    Example: spectra data preview pairs.csv --columns anchor=title,positive=body --against beir/
    """
    from spectra_nsa.text.beir import load_beir
    from spectra_nsa.text.preview import preview
    from spectra_nsa.text.sources import load_source

    found = load_source(source, columns=parse_columns(columns), split=split, limit=limit, quarantine=quarantine)
    other = None
    if against is not None:
        other = load_beir(against) if (Path(against) / "qrels").is_dir() else load_source(against)
    facts = preview(found, rows=rows, against=other)
    if as_json:
        print(json.dumps({"schema": 1} | facts, ensure_ascii=False))
    else:
        _show(facts, limit)


def parse_columns(text: str | None) -> dict[str, str] | None:
    """``anchor=title,positive=body`` as a mapping.

    Raises:
        UsageError: a part without ``=``.
    """
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals and role and column for role, equals, column in pairs):
        raise UsageError(f"--columns {text}: write role=column, with commas between, as in anchor=title,positive=body.")
    return {role.strip(): column.strip() for role, _, column in pairs}


def _show(facts: dict[str, Any], limit: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    from spectra_nsa.core.console import console

    out = console()
    more = " (the limit; --limit reads more)" if facts["rows"] == limit else ""
    out.print(f"[bold]{escape(facts['source'])}[/bold]: {facts['kind']}, {facts['rows']:,} rows{more}")
    for note in facts["notes"]:
        out.print(f"  note: {escape(note)}")
    table = Table("column", "unit", "min", "median", "mean", "p95", "max", "duplicates")
    for name, units in facts["lengths"].items():
        for index, (unit, values) in enumerate(units.items()):
            numbers = [f"{value:,.0f}" for value in values.values()]
            table.add_row("" if index else name, unit, *numbers, "" if index else f"{facts['duplicates'][name]:,}")
    out.print(table)
    for key in ("scores", "labels"):
        if key in facts:
            out.print(f"{key}: {facts[key]}")
    for index, row in enumerate(facts["sample"], 1):
        out.print(f"[bold]row {index}[/bold]")
        for name, value in row.items():
            out.print(f"  [dim]{name}[/dim] {escape(_short(value))}")
    if facts["quarantined"]:
        where = (
            f", written to {facts['quarantine_file']}" if facts["quarantine_file"] else " (--quarantine DIR keeps them)"
        )
        out.print(f"[yellow]{facts['quarantined']:,} broken rows left out[/yellow]{where}; the first:")
        for problem in facts["problems"]:
            out.print(f"  {escape(problem)}")
    if "overlap" in facts:
        seen = facts["overlap"]
        out.print(f"overlap with {seen['with']}: {seen['exact']:,} rows exactly, {seen['near']:,} nearly")


def _short(value: Any) -> str:
    text = " ⏎ ".join(str(value).splitlines())
    return text if len(text) <= 300 else text[:299] + "…"
