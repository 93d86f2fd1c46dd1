"""`spectra quickstart`: training, measuring and search in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectra_nsa.core.console import print_json
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from spectra_nsa.workflows.quickstart.run import Quickstart
    from spectra_nsa.workflows.quickstart.sparse import SparseQuickstart

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
    sparse: Annotated[
        bool,
        typer.Option("--sparse", help="Train sparse encoders instead: SPLADE, and one whose queries need no model."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train, measure and search a model on this machine's own Python code. No download, no GPU, about 10 minutes.

    Example: spectra quickstart --minutes 5
    """
    from spectra_nsa.core.console import console
    from spectra_nsa.core.files import read_json
    from spectra_nsa.workflows.quickstart.run import quickstart

    if sparse and from_scratch:
        raise UsageError("--sparse and --from-scratch train different models: give one of them.")
    out = console(stderr=True) if as_json else console()
    out.print("[bold]Spectra quickstart[/bold]: search Python code by what it does")

    def say(line: str) -> None:
        out.print(line, highlight=False, markup=False, soft_wrap=True)

    result: Quickstart | SparseQuickstart
    if sparse:
        from spectra_nsa.workflows.quickstart.sparse import sparse_quickstart

        result = sparse_quickstart(folder, minutes=minutes, say=say)
    else:
        result = quickstart(folder, minutes=minutes, from_scratch=from_scratch, say=say)
    if as_json:
        print_json(read_json(result.folder / "results.json"))
    else:
        _show(result)


def _grid(header: list[str], rows: list[list[str]], title: str) -> Table:
    from rich.table import Table

    table = Table(title=f"\n{title}", title_justify="left")
    for at, name in enumerate(header):
        table.add_column(name, justify="right" if at else "left")
    for row in rows:
        table.add_row(*row)
    return table


def _figures(result: Quickstart | SparseQuickstart, shown_bold: str) -> Table:
    from rich.table import Table

    table = Table(title=f"\nstandard library, {result.facts['test_pairs']:,} questions", title_justify="left")
    table.add_column("system")
    for metric in SHOWN:
        table.add_column(metric, justify="right")
    rows: dict[str, dict[str, str]] = {}
    for figure in result.evaluation.results:
        interval = f" [dim]±{(figure.ci[1] - figure.ci[0]) / 2:.3f}[/dim]" if figure.ci else ""
        rows.setdefault(figure.system, {})[figure.metric] = f"{figure.value:.3f}{interval}"
    for system, values in rows.items():
        style = "bold" if system == shown_bold else ""
        table.add_row(system, *(values.get(metric, "") for metric in SHOWN), style=style)
    return table


def _show(result: Quickstart | SparseQuickstart) -> None:
    from spectra_nsa.core.console import console
    from spectra_nsa.workflows.quickstart.outputs import outputs_grid
    from spectra_nsa.workflows.quickstart.report import use_grid
    from spectra_nsa.workflows.quickstart.run import Quickstart

    out = console()
    if isinstance(result, Quickstart):
        out.print(_figures(result, "quickstart"))
        out.print(_grid(*outputs_grid(result.outputs), title="search quality of each output"))
    else:
        out.print(_figures(result, "sparse"))
        out.print(_grid(*use_grid(result.use), title="use of the vocabulary"))
    for answer in result.answers:
        out.print(f"\n[bold]{answer.question}[/bold]")
        for name, score, code, *terms in answer.functions:
            first = next((line.strip() for line in code.splitlines() if "def " in line), "")
            detail = " ".join(f"{term} {part:g}" for term, part in terms[0]) if terms else first[:60]
            out.print(f"  {score:.3f}  {name}  ", end="", markup=False)
            out.print(detail, style="dim", markup=False)
    facts = result.facts
    out.print(f"\n{facts['minutes']:.1f} minutes, {facts['peak_memory_gb']:.1f} GB of memory at the peak")
    out.print(f"model      {result.folder / 'model'}", markup=False)
    out.print(f"report     {result.folder / 'report.html'}", markup=False)
    out.print('next       spectra search "read a file line by line" --corpus python:stdlib', markup=False)
