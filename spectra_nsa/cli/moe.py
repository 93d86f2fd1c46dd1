"""`spectra moe`: what can be done with the experts of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectra_nsa.core.console import print_json

app = typer.Typer(help="Work with a model's experts.", no_args_is_help=True)


@app.callback()
def moe() -> None:
    """Work with a model's experts."""


@app.command("dense")
def dense_command(
    model: Annotated[str, typer.Argument(help="The folder of a saved model with experts.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    expert: Annotated[int, typer.Option(min=0, help="The expert to keep in each layer, counted from 0.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Keep one expert of each layer: a dense model, as small and fast as the one that the experts came from.

    Example: spectra moe dense runs/experts/model --expert 2 --output dense
    """
    from spectra_nsa.workflows.moe.dense import recover_dense

    facts = recover_dense(model, output, expert=expert)
    if as_json:
        print_json({"schema": 1, "model": facts.pop("folder"), **facts})
        return
    before, after = facts["parameters"]["before"], facts["parameters"]["after"]
    print(f"expert {expert} of each layer: {before:,} → {after:,} parameters")
    print(f"model: {facts['folder']}")
