"""`spectra distill`: a smaller, faster student of a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spectra_nsa.core.errors import UsageError


def distill_command(
    teacher: Annotated[str, typer.Argument(help="The model to learn from: a folder or a Hub name.")],
    source: Annotated[str, typer.Argument(help="What to learn on: pairs, triplets, scored pairs or texts.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values of the student's recipe.")
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="How many of the teacher's layers it starts from; by default half.")
    ] = None,
    static: Annotated[bool, typer.Option("--static", help="No layers at all: a vector a token, without training.")] = (
        False
    ),
    dim: Annotated[int | None, typer.Option(min=1, help="With --static: its width, by default 256.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder.")] = Path("runs/student"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be encoded and trained, do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train a smaller student of a model, and say what it kept and how fast it is.

    Example: spectra distill sentence-transformers/all-MiniLM-L6-v2 pairs.jsonl --layers 3 --output runs/student
    """
    from spectra_nsa.workflows.distill import distill, distill_static, plan_distillation, student_recipe

    if static and (words or layers is not None or dry_run):
        raise UsageError("--static trains nothing: leave out --layers, --dry-run and KEY=VALUE.")
    if dim is not None and not static:
        raise UsageError("--dim is the width of a --static student; one with layers has its teacher's.")
    if static:
        facts = distill_static(teacher, source, width=dim or 256, output=output, say=_say)
    else:
        recipe = student_recipe(teacher, source, layers=layers, output=output, values=words or [])
        if dry_run:
            plan = plan_distillation(recipe)
            print(json.dumps({"schema": 1, **plan}) if as_json else _planned(plan))
            return
        facts = distill(recipe)
    if facts["interrupted"]:
        print(f"stopped. Go on with: spectra train --resume {output}", file=sys.stderr)
        raise KeyboardInterrupt
    print(json.dumps({"schema": 1, "teacher": teacher, **facts}) if as_json else _readable(teacher, facts))


def _say(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


def _planned(plan: dict[str, Any]) -> str:
    lines = [
        f"{one['teacher']}: {one['texts']:,} texts, {one['to_encode']:,} of them to encode; "
        f"{one['width']} numbers each, {one['bytes'] / 1e6:.1f} MB in the cache"
        for one in plan["teachers"]
    ]
    shape = f"of layers {', '.join(map(str, plan['layers']))}" if plan["layers"] else "of a shape of its own"
    lines.append(
        f"student {shape}: {plan['parameters'] / 1e6:.1f} M parameters; "
        f"{plan['rows']:,} training rows, {plan['dev_rows']} dev rows, {plan['steps']:,} steps; "
        f"loss: {', '.join(plan['terms'])}. Nothing was encoded or trained."
    )
    return "\n".join(lines)


def _readable(teacher: str, facts: dict[str, Any]) -> str:
    before, after = (facts["parameters"][name] / 1e6 for name in ("teacher", "student"))
    where = "held out" if facts["held_out"] else "it has learnt on"
    lines = [f"{facts['steps']} steps in {facts['seconds']:.0f} s"] if "steps" in facts else []
    lines += [
        f"parameters  {after:.1f} M, {teacher} {before:.1f} M",
        f"speed       {facts['speed']:.2f} × the teacher's",
        f"agreement   {facts['agreement']:.4f} (Spearman of the cosines of texts {where})",
    ]
    if (dev := facts["dev"]) is not None:
        lines.append(f"{dev['metric']:<11} {dev['student']:.4f}, teacher {dev['teacher']:.4f}")
    return "\n".join([*lines, f"model: {facts['model']}"])
