"""`spectra ablate`: what each part of a recipe is worth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import DryRun, JsonAtEnd, Words
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from spectra_nsa.workflows.ablate.plan import Plan


def ablate_command(
    words: Words = None,
    parts: Annotated[
        str | None, typer.Option(help="Parts to turn over, by comma; all for those that make sense.")
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(help="A part of your own: NAME:key=value[,key=value…]. Repeatable.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="What models are measured on, as in spectra eval. Repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the recipe's on.")] = 3,
    start: Annotated[str | None, typer.Option("--model", "-m", help="Warm start: a folder or a Hub name.")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="What to train on.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The ablation's folder; one that is there goes on.")
    ] = Path("ablation"),
    markdown: Annotated[Path | None, typer.Option(help="Write the table here too, as Markdown.")] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="Measure this many leading dimensions.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Measure at most so many rows of a source (not of retrieval).")
    ] = None,
    keep_models: Annotated[
        bool, typer.Option("--keep-models", help="Keep the weights of every run, not the recipe's own alone.")
    ] = False,
    list_parts: Annotated[bool, typer.Option("--list-parts", help="Name the parts and say what they are.")] = False,
    dry_run: DryRun = False,
    as_json: JsonAtEnd = False,
) -> None:
    """Measure what each part of a recipe is worth: with and without it, over several seeds, at equal length.

    Example: spectra ablate recipe.yaml --parts spectral,anchor-joined --task sts=dev.jsonl --seeds 3
    """
    if list_parts:
        _list(as_json)
        return
    if markdown is not None and markdown.is_dir():
        raise UsageError(f"{markdown} is a folder: name a file to write.")
    from spectra_nsa.cli.runs import read_recipe
    from spectra_nsa.workflows.ablate.plan import Measures, make_plan

    plan = make_plan(
        read_recipe(words or [], {"model.start": start, "data.train": data}),
        folder=output,
        parts=[name for name in (parts or "").replace(" ", "").split(",") if name],
        own=part or [],
        seeds=seeds,
        measures=Measures(tasks=task or [], limit=limit, dim=dim),
    )
    if dry_run:
        _plan(plan, as_json)
        return
    document = _run(plan, keep_models)
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        _show(document, output)
    if markdown is not None:
        from spectra_nsa.core.files import atomic_write
        from spectra_nsa.report.ablation import ablation_markdown

        with atomic_write(markdown) as file:
            file.write(ablation_markdown(document))


def _list(as_json: bool) -> None:
    from spectra_nsa.config.parts import PARTS

    if as_json:
        print(
            json.dumps({"schema": 1, "parts": {name: part.about for name, part in PARTS.items()}}, ensure_ascii=False)
        )
        return
    width = max(map(len, PARTS))
    for name, part in PARTS.items():
        print(f"{name:<{width}}  {part.about}")


def _plan(plan: Plan, as_json: bool) -> None:
    from spectra_nsa.workflows.ablate.run import plan_document

    facts = plan_document(plan)
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max(len(one["cell"]) for one in facts["cells"])
    for one in facts["cells"]:
        changes = ", ".join(f"{key}={json.dumps(value)}" for key, value in one["changes"].items())
        said = f" ({one['says']})" if changes and one["says"] != changes else one["says"] if not changes else ""
        print(f"{one['cell']:<{width}}  {changes}{said}{'; a head alone' if one['apart'] else ''}")
    for note in facts["notes"]:
        print(f"Note: {note}.")
    print(
        f"{len(facts['cells'])} cells × {len(facts['seeds'])} seeds = {facts['runs']} runs of {facts['steps']:,} steps "
        f"on {facts['rows']:,} rows, {facts['done']} done; measured on {', '.join(facts['tasks'])}; kept in "
        f"{facts['folder']}. Nothing was trained."
    )


def _run(plan: Plan, keep_models: bool) -> dict[str, Any]:
    from spectra_nsa.core.console import console
    from spectra_nsa.workflows.ablate.run import ablate

    err = console(stderr=True)
    try:
        return ablate(plan, keep_models=keep_models, say=lambda line: err.print(line, markup=False, soft_wrap=True))
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on where it was ({plan.folder})", file=sys.stderr)
        raise


def _show(document: dict[str, Any], folder: Path) -> None:
    from spectra_nsa.core.console import console
    from spectra_nsa.report.ablation import ablation_table, lines

    out = console()
    out.print(ablation_table(document))
    for line in lines(document):
        out.print(line, markup=False, soft_wrap=True)
    for note in document["notes"]:
        out.print(f"Note: {note}.", markup=False, style="dim", soft_wrap=True)
    for name in ("ablation.json", "ablation.md", "report.html"):
        console(stderr=True).print(f"wrote {folder / name}", markup=False)
