"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from spectra_nsa.core.errors import UsageError

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
RecipeColumns = Annotated[
    str | None, typer.Option("--columns", help="Comma-separated ROLE=COLUMN pairs, such as anchor=title,positive=body.")
]
Precision = Annotated[
    Literal["fp32", "bf16", "fp16", "auto"],
    typer.Option(help="Compute precision; auto uses bf16 if the processor supports it, which is faster."),
]


class CommandList(TyperGroup):
    """A group of commands whose help shows their whole first sentence, on several lines if need be."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        names = self.list_commands(ctx)
        rows = [(name, self.commands[name].get_short_help_str(limit=1000)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class RecipeCommand(TyperCommand):
    """A command that takes recipe keys as KEY=VALUE. An unknown option that is the name of a key says so."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {option for parameter in self.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for at, word in enumerate(args):
            if word == "--":
                break
            option, equals, value = word.partition("=")
            if not option.startswith("--") or option in options or not option[2:]:
                continue
            from spectra_nsa.config.recipe import recipe_key

            key = recipe_key(option[2:].replace("-", "_"))
            if key is not None:
                following = args[at + 1] if at + 1 < len(args) else ""
                value = value if equals else following if following and not following.startswith("-") else "VALUE"
                raise UsageError(
                    f"{option} is not an option of spectra {ctx.info_name}. Recipe keys are given without dashes: "
                    f"{key}={value}"
                )
        return super().parse_args(ctx, args)


def recipe_columns(columns: str | None, words: Sequence[str]) -> dict[str, str] | None:
    """Returns the value of `data.columns` that the value of `RecipeColumns` describes; ``None`` if it is not given.

    Args:
        columns: the option's value.
        words: the command's ``key=value`` words.

    Raises:
        UsageError: it is no list of ROLE=COLUMN, or one of the words sets `data.columns` too.
    """
    if columns is None:
        return None
    twice = next((word for word in words if word.startswith(("data.columns=", "data.columns."))), None)
    if twice is not None:
        raise UsageError(f"--columns and {twice} both map the columns: give only one of them.")
    from spectra_nsa.text.columns import parse_columns

    return parse_columns(columns)


def shared_columns(columns: str | None) -> SharedColumns:
    """Returns the column mapping that the value of `Columns` describes."""
    from spectra_nsa.text.columns import parse_columns
    from spectra_nsa.text.shared_columns import SharedColumns

    return SharedColumns(None if columns is None else parse_columns(columns))
