"""`spectra ablate`: measures what each part of a recipe is worth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import DryRun, JsonAtEnd, RecipeColumns, RecipeWords, recipe_columns
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from spectra_nsa.workflows.ablate.plan import AblationPlan


def ablate_command(
    words: RecipeWords = None,
    parts: Annotated[
        str | None, typer.Option(help="Comma-separated parts to switch; all: every part that applies.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="A custom part: NAME:key=value[,key=value…]. Repeatable.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="A task to evaluate models on, as in spectra eval. Repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, counting up from the recipe's.")] = 3,
    start: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to start from: a folder or a Hub name.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="Source of training rows.")] = None,
    columns: RecipeColumns = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the ablation; an existing one is resumed.")
    ] = Path("ablation"),
    markdown: Annotated[Path | None, typer.Option(help="Also write the table to this Markdown file.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Evaluate only this many leading dimensions.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate at most this many rows of each source (except retrieval).")
    ] = None,
    keep_models: Annotated[
        bool,
        typer.Option("--keep-models", help="Keep the weights of every run, not only those of the unchanged recipe."),
    ] = False,
    list_parts: Annotated[bool, typer.Option("--list-parts", help="List the parts with descriptions.")] = False,
    dry_run: DryRun = False,
    as_json: JsonAtEnd = False,
) -> None:
    """Measure what each part of a recipe is worth: train with and without it, over several seeds, for equal steps.

    Example: spectra ablate recipe.yaml --parts spectral,anchor-joined --task sts=dev.jsonl --seeds 3
    """
    if list_parts:
        _list(as_json)
        return
    if markdown is not None and markdown.is_dir():
        raise UsageError(f"{markdown} is a folder: name a file to write.")
    from spectra_nsa.cli.runs import read_recipe
    from spectra_nsa.workflows.ablate.plan import MeasureOptions, make_plan

    flags = {"model.start": start, "data.train": data, "data.columns": recipe_columns(columns, words or [])}
    plan = make_plan(
        read_recipe(words or [], flags),
        folder=output,
        parts=[name for name in (parts or "").replace(" ", "").split(",") if name],
        custom=part or [],
        seeds=seeds,
        measures=MeasureOptions(tasks=task or [], limit=limit, dim=dim),
    )
    if dry_run:
        _plan(plan, as_json)
        return
    _report(_run(plan, keep_models), output, markdown, as_json)


def _report(document: dict[str, Any], folder: Path, markdown: Path | None, as_json: bool) -> None:
    from spectra_nsa.core.files import atomic_write
    from spectra_nsa.report.ablation import ablation_markdown

    if as_json:
        print_json(document)
    else:
        _show(document, folder)
    if markdown is not None:
        with atomic_write(markdown) as file:
            file.write(ablation_markdown(document))


def _list(as_json: bool) -> None:
    from spectra_nsa.config.ablation.parts import PARTS

    if as_json:
        print_json({"schema": 1, "parts": {name: part.about for name, part in PARTS.items()}})
        return
    width = max(map(len, PARTS))
    for name, part in PARTS.items():
        print(f"{name:<{width}}  {part.about}")


def _plan(plan: AblationPlan, as_json: bool) -> None:
    from spectra_nsa.workflows.ablate.run import plan_document

    facts = plan_document(plan)
    if as_json:
        print_json(facts, indent=2)
        return
    width = max(len(cell["cell"]) for cell in facts["cells"])
    for cell in facts["cells"]:
        changes = ", ".join(f"{key}={json.dumps(value)}" for key, value in cell["changes"].items())
        about = f" ({cell['says']})" if changes and cell["says"] != changes else cell["says"] if not changes else ""
        print(f"{cell['cell']:<{width}}  {changes}{about}{'; a detached head' if cell['apart'] else ''}")
    for note in facts["notes"]:
        print(f"Note: {note}.")
    print(
        f"{counted(len(facts['cells']), 'cell')} × {counted(len(facts['seeds']), 'seed')} = "
        f"{counted(facts['runs'], 'run')} of {counted(facts['steps'], 'step')} "
        f"on {counted(facts['rows'], 'row')}, {facts['done']} done; measured on {', '.join(facts['tasks'])}; folder "
        f"{facts['folder']}. Nothing was trained."
    )


def _run(plan: AblationPlan, keep_models: bool) -> dict[str, Any]:
    from spectra_nsa.core.console import console
    from spectra_nsa.workflows.ablate.run import ablate

    err = console(stderr=True)
    try:
        return ablate(plan, keep_models=keep_models, say=lambda line: err.print(line, markup=False, soft_wrap=True))
    except KeyboardInterrupt:
        print(f"stopped; the same command resumes it ({plan.folder})", file=sys.stderr)
        raise


def _show(document: dict[str, Any], folder: Path) -> None:
    from spectra_nsa.core.console import console
    from spectra_nsa.report.ablation import ablation_table, reading_notes

    out = console()
    out.print(ablation_table(document))
    for line in reading_notes(document):
        out.print(line, markup=False, soft_wrap=True)
    for note in document["notes"]:
        out.print(f"Note: {note}.", markup=False, style="dim", soft_wrap=True)
    for name in ("ablation.json", "ablation.md", "report.html"):
        console(stderr=True).print(f"wrote {folder / name}", markup=False)
