"""`spectra quickstart`: the whole way in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from spectra_nsa.workflows.quickstart.run import Quickstart

SHOWN = ("ndcg@10", "mrr", "recall@1", "recall@10")


def quickstart_command(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where the run goes; runs/quickstart by default.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.5, help="About how long it may take, all in all.")] = 10,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="A small model of its own, from vocabulary to distillation.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train, measure and search a model on this machine's own Python code. No download, no GPU, about 10 minutes.

    Example: spectra quickstart --minutes 5
    """
    from spectra_nsa.core.console import console
    from spectra_nsa.core.files import read_json
    from spectra_nsa.workflows.quickstart.run import quickstart

    out = console(stderr=True) if as_json else console()
    out.print("[bold]Spectra quickstart[/bold]: search Python code by what it does")
    done = quickstart(
        folder,
        minutes=minutes,
        from_scratch=from_scratch,
        say=lambda line: out.print(line, highlight=False, markup=False),
    )
    if as_json:
        print(json.dumps(read_json(done.folder / "results.json")))
    else:
        _show(done)


def _outputs(done: Quickstart) -> Table:
    from rich.table import Table

    from spectra_nsa.workflows.quickstart.outputs import outputs_grid

    header, rows = outputs_grid(done.outputs)
    table = Table(title="\nwhat one forward pass gives", title_justify="left")
    for at, name in enumerate(header):
        table.add_column(name, justify="right" if at else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _show(done: Quickstart) -> None:
    from rich.table import Table

    from spectra_nsa.core.console import console

    out = console()
    table = Table(title=f"\nstandard library, {done.facts['test_pairs']:,} questions", title_justify="left")
    table.add_column("system")
    for metric in SHOWN:
        table.add_column(metric, justify="right")
    rows: dict[str, dict[str, str]] = {}
    for result in done.evaluation.results:
        interval = f" [dim]±{(result.ci[1] - result.ci[0]) / 2:.3f}[/dim]" if result.ci else ""
        rows.setdefault(result.system, {})[result.metric] = f"{result.value:.3f}{interval}"
    for system, values in rows.items():
        style = "bold" if system == "quickstart" else ""
        table.add_row(system, *(values.get(metric, "") for metric in SHOWN), style=style)
    out.print(table)
    out.print(_outputs(done))
    for answer in done.answers:
        out.print(f"\n[bold]{answer.question}[/bold]")
        for name, score, code in answer.found:
            first = next((line.strip() for line in code.splitlines() if "def " in line), "")
            out.print(f"  {score:.3f}  {name}  ", end="", markup=False)
            out.print(f"{first[:60]}", style="dim", markup=False)
    facts = done.facts
    out.print(f"\n{facts['minutes']:.1f} minutes, {facts['peak_memory_gb']:.1f} GB of memory at the peak")
    out.print(f"model      {done.folder / 'model'}", markup=False)
    out.print(f"report     {done.folder / 'report.html'}", markup=False)
    out.print('next       spectra search "read a file line by line" --corpus python:stdlib', markup=False)
