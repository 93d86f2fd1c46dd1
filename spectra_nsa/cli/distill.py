"""`spectra distill`: trains a smaller, faster student of a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import MaxSteps, RecipeColumns, recipe_columns
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe


STATIC_WIDTH = 256
RESUME_EXCLUDES = (
    "--resume continues a run with its own recipe and takes no other option. To change a key: spectra train "
    "--resume RUN KEY=VALUE."
)


def distill_command(
    teacher: Annotated[
        str | None, typer.Argument(help="Model to learn from: a folder or a Hub name.", show_default=False)
    ] = None,
    source: Annotated[
        str | None,
        typer.Argument(help="Source to train on: pairs, triplets, scored pairs or texts.", show_default=False),
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the student's recipe (with --static: data.* only)."),
    ] = None,
    columns: RecipeColumns = None,
    layers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of teacher layers to start from (default: half; none with model.size=SIZE)."),
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="Make a student without layers: one vector per token, no training.")
    ] = False,
    dim: Annotated[int | None, typer.Option(min=1, help="Width of a --static student (default: 256).")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the rows.")] = None,
    max_steps: MaxSteps = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run's folder (default: runs/student).")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Resume an interrupted run. Excludes every other option but --json.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be encoded and trained, without doing it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a smaller student of a model, and compare its quality and speed with the teacher's.

    The student starts from some of the teacher's layers. With model.size=small (or another preset: spectra inspect
    small) it has that shape, and its token embedding starts from the teacher's vectors. With --static it has no layers.

    Example: spectra distill sentence-transformers/all-MiniLM-L6-v2 pairs.jsonl --layers 3 --output runs/student
    """
    if resume is not None:
        if any((teacher, columns, layers, static, dim, epochs, max_steps, output, dry_run)):
            raise UsageError(RESUME_EXCLUDES)
        _resume(resume, as_json)
        return
    if teacher is None or source is None:
        raise UsageError("name a teacher and a source: spectra distill TEACHER SOURCE (or --resume RUN).")
    if static and layers is not None:
        raise UsageError("--static makes a student without layers: leave out --layers.")
    if dim is not None and not static:
        raise UsageError("--dim is the width of a --static student; a student with layers has its teacher's width.")
    flags = {"train.epochs": epochs, "train.max_steps": max_steps, "data.columns": recipe_columns(columns, words or [])}
    values = [f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None] + (words or [])
    output = output or Path("runs/student")
    if static:
        _make_static(teacher, source, values, output, dim or STATIC_WIDTH, dry_run, as_json)
    else:
        _make_student(teacher, source, values, output, layers, dry_run, as_json)


def _resume(run: Path, as_json: bool) -> None:
    from spectra_nsa.workflows.distill.student import resumed_recipe, train_student

    recipe = resumed_recipe(run)
    _run(recipe, lambda: train_student(recipe, resume=run), as_json)


def _make_student(
    teacher: str, source: str, values: list[str], output: Path, layers: int | None, dry_run: bool, as_json: bool
) -> None:
    from spectra_nsa.training.checks import check_names
    from spectra_nsa.workflows.distill.student import plan_student, student_recipe, train_student

    say = None if dry_run else _say
    recipe = student_recipe(teacher, source, layers=layers, output=output, values=values, say=say)
    check_names(recipe)
    if dry_run:
        plan = plan_student(recipe)
        if as_json:
            print_json({"schema": 1, **plan})
        else:
            print(_student_plan(plan))
        return
    _run(recipe, lambda: train_student(recipe), as_json)


def _make_static(
    teacher: str, source: str, values: list[str], output: Path, width: int, dry_run: bool, as_json: bool
) -> None:
    from spectra_nsa.training.checks import check_names
    from spectra_nsa.workflows.distill.static import make_static_student, plan_static, static_recipe

    recipe = static_recipe(teacher, source, output=output, values=values)
    check_names(recipe)
    if dry_run:
        plan = plan_static(recipe, width=width)
        if as_json:
            print_json({"schema": 1, **plan})
        else:
            print(_static_plan(plan))
        return
    _run(recipe, lambda: make_static_student(recipe, width=width, say=_say), as_json)


def _run(recipe: Recipe, work: Callable[[], dict[str, Any]], as_json: bool) -> None:
    from spectra_nsa.cli.runs import warn_if_not_better
    from spectra_nsa.workflows.distill.rows import run_folder

    try:
        facts = work()
    except KeyboardInterrupt:  # before the first step
        facts = {"interrupted": True}
    if facts["interrupted"]:
        folder = run_folder(recipe)
        resumable = (folder / "recipe.yaml").exists()
        remedy = f"Resume with: spectra distill --resume {folder}" if resumable else "Run the same command again."
        print(f"stopped. {remedy}", file=sys.stderr)
        raise typer.Exit(130)
    warn_if_not_better(facts.get("best", {}), facts.get("start", {}))
    teacher = recipe.distill.teachers[0]
    if as_json:
        print_json({"schema": 1, "teacher": teacher, **facts})
    else:
        print(_summary(teacher, facts))


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _student_plan(plan: dict[str, Any]) -> str:
    sets = [(teacher, "text") for teacher in plan["teachers"]]
    if plan["words"]:
        sets.append((plan["words"], "vocabulary piece"))
    lines = [
        f"{teacher['teacher']}: {counted(teacher['texts'], kind)}, {teacher['to_encode']:,} of them to encode; "
        f"{teacher['width']} dimensions each, {teacher['bytes'] / 1e6:.1f} MB in the cache"
        for teacher, kind in sets
    ]
    shape = f"of {counted(plan['layers'], 'layer')}" if plan["layers"] else "of a different shape"
    lines.append(
        f"student {shape}: {plan['parameters'] / 1e6:.1f} M parameters; "
        f"{_rows(plan)}, {counted(plan['steps'], 'step')}; "
        f"loss: {', '.join(plan['terms'])}. Nothing was encoded or trained."
    )
    return "\n".join(lines)


def _rows(plan: dict[str, Any]) -> str:
    quarantined = f", {plan['quarantined']:,} quarantined" if plan["quarantined"] else ""
    return f"{counted(plan['rows'], 'training row')}, {counted(plan['dev_rows'], 'dev row')}{quarantined}"


def _static_plan(plan: dict[str, Any]) -> str:
    return (
        f"{plan['teacher']}: {plan['tokens']:,} tokens to encode; weighted by {_rows(plan)}; "
        f"a static student with {plan['width']} dimensions per token, {plan['bytes'] / 1e6:.1f} MB. "
        "Nothing was encoded or written."
    )


def _summary(teacher: str, facts: dict[str, Any]) -> str:
    before, after = (facts["parameters"][name] / 1e6 for name in ("teacher", "student"))
    kind = "held-out" if facts["held_out"] else "training"
    lines = [f"{counted(facts['steps'], 'step')} in {facts['seconds']:.0f} s"] if "steps" in facts else []
    if facts.get("layers"):
        lines.append(f"layers      {', '.join(map(str, facts['layers']))} of {teacher}")
    lines += [
        f"parameters  {after:.1f} M, {teacher} {before:.1f} M",
        f"speed       {facts['speed']:.2f} × the teacher's",
        f"agreement   {facts['agreement']:.4f} (Spearman of the cosines of {kind} texts)",
    ]
    if (dev := facts["dev"]) is not None:
        lines.append(f"{dev['metric']:<11} {dev['student']:.4f}, teacher {dev['teacher']:.4f}")
    return "\n".join([*lines, f"model: {facts['model']}"])
