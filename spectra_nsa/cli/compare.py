"""`spectra compare`: compares two runs or two models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import UsageError


def compare_command(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A run's folder, or a model: a preset, a folder or a Hub name.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Another run or model.")],
    html: Annotated[Path | None, typer.Option(help="Write the curves of both runs to this HTML file.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every loss term and code figure of runs too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how two runs differ in settings and outcome, or how two models differ in shape and cost.

    Example: spectra compare runs/first runs/second --html compare.html
    """
    runs = [(Path(name) / "recipe.yaml").is_file() for name in (first, second)]
    if html is not None and html.is_dir():
        raise UsageError(f"{html} is a folder: name a file to write.")
    if all(runs):
        _runs(first, second, html, show_all, as_json)
    elif any(runs):
        raise UsageError(
            f"{first if runs[0] else second} is a run, but {second if runs[0] else first} is not: compare two runs, or "
            "two models (runs/NAME/model)."
        )
    else:
        _models(first, second, html, as_json)


def _runs(first: str, second: str, html: Path | None, show_all: bool, as_json: bool) -> None:
    from spectra_nsa.core.console import console
    from spectra_nsa.report.compare import compare_runs, comparison_page, comparison_rows, run_names
    from spectra_nsa.report.run_log import read_run

    runs = read_run(first), read_run(second)
    facts = compare_runs(*runs)
    if as_json:
        print_json(facts, indent=2)
    else:
        settings, outcomes = comparison_rows(facts, details=show_all)
        names = run_names(*runs)
        if not settings:
            console().print("the recipes are the same")
        _print_table("recipe: differing keys", names, settings)
        _print_table(f"outcome; difference: {names[1]} − {names[0]}", (*names, "difference"), outcomes)
        for note in facts["notes"]:
            console().print(f"note: {note}", markup=False, soft_wrap=True)
    if html is not None:
        comparison_page(*runs).write(html)
        console(stderr=True).print(f"wrote {html}", markup=False)


def _models(first: str, second: str, html: Path | None, as_json: bool) -> None:
    from spectra_nsa.models.size import inspect_model, spec_of
    from spectra_nsa.report.compare import comparison_rows, differing

    if html is not None:
        raise UsageError("--html draws training curves, so it needs two runs, not two models.")
    kept = ("parameters", "flops_per_token", "memory_gb", "parts", "shape")
    first_size, second_size = (
        {key: value for key, value in inspect_model(spec_of(name)).items() if key in kept} for name in (first, second)
    )
    facts: dict[str, Any] = {
        "schema": 1,
        "models": [first, second],
        "differences": {key: list(values) for key, values in differing(first_size, second_size).items()},
    }
    if as_json:
        print_json(facts, indent=2)
        return
    _, rows = comparison_rows({"recipe": {}, "outcomes": facts["differences"]})
    if not rows:
        print("no difference in shape or cost; to compare the weights, use spectra eval")
    _print_table(f"models; difference: {second} − {first}", (first, second, "difference"), rows)


def _print_table(title: str, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from spectra_nsa.core.console import console

    if not rows:
        return
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)
