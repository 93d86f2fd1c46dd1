"""`spectra quickstart`: training, measuring and search in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectra_nsa.core.console import print_json

if TYPE_CHECKING:
    from rich.table import Table

    from spectra_nsa.workflows.quickstart.run import Quickstart

SHOWN = ("ndcg@10", "mrr", "recall@1", "recall@10")


def quickstart_command(
    folder: Annotated[Path | None, typer.Option("--dir", help="The run's folder; runs/quickstart by default.")] = None,
    minutes: Annotated[
        float,
        typer.Option(min=0.5, help="About how long the whole command may take: 2 at least, 4 with --from-scratch."),
    ] = 10,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Train a small model from scratch: vocabulary, model, distillation.")
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
    result = quickstart(
        folder,
        minutes=minutes,
        from_scratch=from_scratch,
        say=lambda line: out.print(line, highlight=False, markup=False, soft_wrap=True),
    )
    if as_json:
        print_json(read_json(result.folder / "results.json"))
    else:
        _show(result)


def _outputs(result: Quickstart) -> Table:
    from rich.table import Table

    from spectra_nsa.workflows.quickstart.outputs import outputs_grid

    header, rows = outputs_grid(result.outputs)
    table = Table(title="\nsearch quality of each output", title_justify="left")
    for at, name in enumerate(header):
        table.add_column(name, justify="right" if at else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _show(result: Quickstart) -> None:
    from rich.table import Table

    from spectra_nsa.core.console import console

    out = console()
    table = Table(title=f"\nstandard library, {result.facts['test_pairs']:,} questions", title_justify="left")
    table.add_column("system")
    for metric in SHOWN:
        table.add_column(metric, justify="right")
    rows: dict[str, dict[str, str]] = {}
    for figure in result.evaluation.results:
        interval = f" [dim]±{(figure.ci[1] - figure.ci[0]) / 2:.3f}[/dim]" if figure.ci else ""
        rows.setdefault(figure.system, {})[figure.metric] = f"{figure.value:.3f}{interval}"
    for system, values in rows.items():
        style = "bold" if system == "quickstart" else ""
        table.add_row(system, *(values.get(metric, "") for metric in SHOWN), style=style)
    out.print(table)
    out.print(_outputs(result))
    for answer in result.answers:
        out.print(f"\n[bold]{answer.question}[/bold]")
        for name, score, code in answer.functions:
            first = next((line.strip() for line in code.splitlines() if "def " in line), "")
            out.print(f"  {score:.3f}  {name}  ", end="", markup=False)
            out.print(f"{first[:60]}", style="dim", markup=False)
    facts = result.facts
    out.print(f"\n{facts['minutes']:.1f} minutes, {facts['peak_memory_gb']:.1f} GB of memory at the peak")
    out.print(f"model      {result.folder / 'model'}", markup=False)
    out.print(f"report     {result.folder / 'report.html'}", markup=False)
    out.print('next       spectra search "read a file line by line" --corpus python:stdlib', markup=False)
