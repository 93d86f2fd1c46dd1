"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from spectra_nsa.text.shared_columns import SharedColumns

RecipeWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.yaml] [KEY=VALUE]...", help="A recipe file, and values that override its keys."),
]
Size = Annotated[str | None, typer.Option(help="Train from scratch with this size preset (M456 if no model is named).")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Stop after this many steps.")]
Name = Annotated[str | None, typer.Option(help="The run's name.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Random seed.")]
Resume = Annotated[Path | None, typer.Option(help="Resume a run, or start from one of its checkpoints.")]
GradientCheckpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Use less memory, at lower speed.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and show the plan without training.")]
JsonAtEnd = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Columns = Annotated[
    str | None, typer.Option(help="Comma-separated ROLE=COLUMN pairs, for the sources that have these columns.")
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16", "auto"],
    typer.Option(help="Compute precision; auto uses bf16 if the processor supports it, which is faster."),
]


def say_loading(name: str) -> None:
    """Prints to stderr which model is being loaded, because loading takes a second or more."""
    print(f"spectra: loading {name}", file=sys.stderr, flush=True)


def shared_columns(columns: str | None) -> SharedColumns:
    """Returns the column mapping that the value of `Columns` describes."""
    from spectra_nsa.text.columns import parse_columns
    from spectra_nsa.text.shared_columns import SharedColumns

    return SharedColumns(None if columns is None else parse_columns(columns))
