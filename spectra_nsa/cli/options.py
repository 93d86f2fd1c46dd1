"""Options that several verbs share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from spectra_nsa.text.shared_columns import SharedColumns

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml] [KEY=VALUE]...", help="A recipe, and values that override it."),
]
Size = Annotated[str | None, typer.Option(help="From scratch: a size preset (M456 when nothing else is named).")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")]
Name = Annotated[str | None, typer.Option(help="The run's name.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")]
Resume = Annotated[Path | None, typer.Option(help="Go on with a run, or from one of its checkpoints.")]
GradientCheckpointing = Annotated[bool, typer.Option("--gradient-checkpointing", help="Less memory, slower.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, show the plan, train nothing.")]
JsonAtEnd = Annotated[bool, typer.Option("--json", help="Print JSON at the end.")]
Columns = Annotated[
    str | None, typer.Option(help="ROLE=COLUMN, with commas between, for the sources that have these columns.")
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16", "auto"],
    typer.Option(help="What to compute in; auto: bf16 where the processor has it, which is faster."),
]


def say_loading(name: str) -> None:
    """Prints on stderr what is being loaded, since the libraries that follow take a second or more."""
    print(f"spectra: loading {name}", file=sys.stderr, flush=True)


def shared_columns(columns: str | None) -> SharedColumns:
    """The reader for what `Columns` says."""
    from spectra_nsa.text.columns import parse_columns
    from spectra_nsa.text.shared_columns import SharedColumns

    return SharedColumns(None if columns is None else parse_columns(columns))
