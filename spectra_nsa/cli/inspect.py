"""`spectra inspect`: a model's parts, parameters, FLOPs, memory and training time."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spectra_nsa.core.console import print_json


def inspect_command(
    model: Annotated[str, typer.Argument(metavar="PRESET|MODEL", help="A size preset, a model folder or a Hub name.")],
    gpu: Annotated[str, typer.Option(help="The GPU for the estimate of hours.")] = "A100",
    rows: Annotated[int | None, typer.Option(min=1, help="Training rows: estimates the hours of a training.")] = None,
    epochs: Annotated[float, typer.Option(min=0.01, help="Epochs, for the estimate.")] = 3,
    batch: Annotated[int, typer.Option(min=1, help="Rows in memory at a time, for the estimate.")] = 8,
    texts: Annotated[int, typer.Option(min=1, help="Texts per row: 3 for triplets, 2 for pairs.")] = 3,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Recompute activations in the backward pass.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model's parts, parameters, FLOPs, memory and training hours, without loading it.

    spectra train --dry-run computes the memory in the same way, with the batch and the texts of its recipe.

    Example: spectra inspect M456 --gpu H100
    """
    from spectra_nsa.cli.encode_sparse import inspect_sparse, is_sparse

    if is_sparse(model):
        inspect_sparse(model, as_json=as_json)
        return
    from spectra_nsa.models.size import Workload, inspect_model, spec_of

    workload = Workload(
        rows=rows or Workload.rows,
        epochs=epochs,
        batch=batch,
        texts=texts,
        gpu=gpu,
        checkpointing=gradient_checkpointing,
    )
    facts = inspect_model(spec_of(model), workload)
    if as_json:
        print_json(facts, indent=2)
        return
    _print(model, facts, texts_in_memory=f"{batch} × {texts}", hours=rows is not None)


def _print(model: str, facts: dict[str, Any], *, texts_in_memory: str, hours: bool) -> None:
    """Prints a model's facts as a table and lines; `hours` of training too."""
    from rich.table import Table

    from spectra_nsa.core.console import console
    from spectra_nsa.models.size import is_checkpoint
    from spectra_nsa.report.labels import label

    out = console()
    started = " as warm-started, with the heads that it gets" if is_checkpoint(model) else ""
    out.print(
        f"{model}{started}: {facts['parameters'] / 1e6:,.1f} M parameters", style="italic", markup=False, soft_wrap=True
    )
    table = Table()
    table.add_column("part")
    table.add_column("parameters", justify="right")
    table.add_column("share", justify="right")
    for name, number in facts["parts"].items():
        table.add_row(label(f"parts.{name}"), f"{number:,}", f"{number / facts['parameters']:.1%}")
    out.print(table)
    shape = ", ".join(f"{label(f'shape.{name}')} {_shown(value)}" for name, value in facts["shape"].items())
    out.print(f"shape      {shape}", markup=False)
    out.print(
        f"compute    {facts['flops_per_token'] / 1e6:,.1f} MFLOP per token, forward pass; "
        f"{facts['encoder_active'] / 1e6:,.1f} M encoder weights at work for a token, without embeddings"
    )
    memory = facts["memory_gb"]
    out.print(f"memory     {memory['inference']} GB for inference")
    out.print(f"           {memory['training']} GB for training with {texts_in_memory} texts in memory")
    if hours:
        out.print(f"training   {facts['hours_estimate']} h on one {facts['gpu']}")
        out.print(f"  [dim]{facts['how'][-1]}[/dim]")
    out.print("[dim]Estimates from the shape; --json says how each is computed, --rows estimates hours.[/dim]")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == "none":
        return "no"
    return " ⊃ ".join(map(str, value)) if isinstance(value, list) else str(value)
