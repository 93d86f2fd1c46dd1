"""`spectra distill`: a smaller, faster student of a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import MaxSteps
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe


def distill_command(
    teacher: Annotated[
        str | None, typer.Argument(help="The model to learn from: a folder or a Hub name.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Argument(help="What to learn on: pairs, triplets, scored pairs or texts.", show_default=False),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Values of the student's recipe (with --static: data.…)."),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many of the teacher's layers it starts from; by default half, or none with model.size=SIZE.",
        ),
    ] = None,
    static: Annotated[bool, typer.Option("--static", help="No layers at all: a vector a token, without training.")] = (
        False
    ),
    dim: Annotated[int | None, typer.Option(min=1, help="With --static: its width, by default 256.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the rows.")] = None,
    max_steps: MaxSteps = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")] = Path("runs/student"),
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with a run that was stopped, then compare. No other words.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be encoded and trained, do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a smaller student of a model, and say what it kept and how fast it is.

    It starts from some of the model's layers; with model.size=small (or another size: spectra inspect small) it has a
    shape of its own and begins with the model's words; with --static it has no layers.

    Example: spectra distill sentence-transformers/all-MiniLM-L6-v2 pairs.jsonl --layers 3 --output runs/student
    """
    from spectra_nsa.training.checks import check_names
    from spectra_nsa.workflows.distill import run as work

    if resume is not None:
        if any((teacher, layers, static, dim, epochs, max_steps, dry_run)):
            raise UsageError(
                "--resume goes on with a run by its own recipe: name the run alone, or change a key by spectra train "
                "--resume RUN KEY=VALUE."
            )
        recipe = work.recipe_of(resume)
        _run(recipe, lambda: work.distill(recipe, resume=resume), as_json)
        return
    if teacher is None or source is None:
        raise UsageError("name a teacher and what to learn on: spectra distill TEACHER SOURCE (or --resume RUN).")
    if static and layers is not None:
        raise UsageError("--static trains nothing and has no layers: leave out --layers.")
    if dim is not None and not static:
        raise UsageError("--dim is the width of a --static student; one with layers has its teacher's.")
    width = dim or 256
    values = [f"train.{key}={value}" for key, value in (("epochs", epochs), ("max_steps", max_steps)) if value]
    values += words or []
    if static:
        recipe = work.static_recipe(teacher, source, output=output, values=values)
    else:
        say = None if dry_run else _say
        recipe = work.student_recipe(teacher, source, layers=layers, output=output, values=values, say=say)
    check_names(recipe)
    if dry_run:
        plan = work.plan_static(recipe, width=width) if static else work.plan_distillation(recipe)
        shown = json.dumps({"schema": 1, **plan}) if as_json else _planned_static(plan) if static else _planned(plan)
        print(shown)
        return
    _run(
        recipe, lambda: work.distill_static(recipe, width=width, say=_say) if static else work.distill(recipe), as_json
    )


def _run(recipe: Recipe, work: Callable[[], dict[str, Any]], as_json: bool) -> None:
    from spectra_nsa.cli.runs import warn_if_not_better
    from spectra_nsa.workflows.distill.run import folder_of

    try:
        facts = work()
    except KeyboardInterrupt:  # before the first step
        facts = {"interrupted": True}
    if facts["interrupted"]:
        folder = folder_of(recipe)
        again = (folder / "recipe.yaml").exists()
        remedy = f"Go on with: spectra distill --resume {folder}" if again else "Give the same command again."
        print(f"stopped. {remedy}", file=sys.stderr)
        raise typer.Exit(130)
    warn_if_not_better(facts.get("best", {}), facts.get("start", {}))
    teacher = recipe.distill.teachers[0]
    print(json.dumps({"schema": 1, "teacher": teacher, **facts}) if as_json else _readable(teacher, facts))


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _planned(plan: dict[str, Any]) -> str:
    told = [(one, "texts") for one in plan["teachers"]] + ([(plan["words"], "pieces")] if plan["words"] else [])
    lines = [
        f"{one['teacher']}: {one['texts']:,} {what}, {one['to_encode']:,} of them to encode; "
        f"{one['width']} numbers each, {one['bytes'] / 1e6:.1f} MB in the cache"
        for one, what in told
    ]
    shape = f"of {plan['layers']} layers" if plan["layers"] else "of a shape of its own"
    lines.append(
        f"student {shape}: {plan['parameters'] / 1e6:.1f} M parameters; "
        f"{_rows(plan)}, {plan['steps']:,} steps; "
        f"loss: {', '.join(plan['terms'])}. Nothing was encoded or trained."
    )
    return "\n".join(lines)


def _rows(plan: dict[str, Any]) -> str:
    broken = f", {plan['quarantined']:,} broken ones left out" if plan["quarantined"] else ""
    return f"{plan['rows']:,} training rows, {plan['dev_rows']} dev rows{broken}"


def _planned_static(plan: dict[str, Any]) -> str:
    return (
        f"{plan['teacher']}: {plan['tokens']:,} tokens to encode; weighed by {_rows(plan)}; "
        f"a static student of {plan['width']} numbers a token, {plan['bytes'] / 1e6:.1f} MB. "
        "Nothing was encoded or written."
    )


def _readable(teacher: str, facts: dict[str, Any]) -> str:
    before, after = (facts["parameters"][name] / 1e6 for name in ("teacher", "student"))
    where = "held out" if facts["held_out"] else "it has learnt on"
    lines = [f"{facts['steps']} steps in {facts['seconds']:.0f} s"] if "steps" in facts else []
    if facts.get("layers"):
        lines.append(f"layers      {', '.join(map(str, facts['layers']))} of {teacher}")
    lines += [
        f"parameters  {after:.1f} M, {teacher} {before:.1f} M",
        f"speed       {facts['speed']:.2f} × the teacher's",
        f"agreement   {facts['agreement']:.4f} (Spearman of the cosines of texts {where})",
    ]
    if (dev := facts["dev"]) is not None:
        lines.append(f"{dev['metric']:<11} {dev['student']:.4f}, teacher {dev['teacher']:.4f}")
    return "\n".join([*lines, f"model: {facts['model']}"])
