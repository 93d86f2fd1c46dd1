"""Helpers of the commands that start runs: reading and checking recipes, and reporting how a run ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe
    from spectra_nsa.training.run import RunResult

_LOST = 0.5  # of the terms at the start or the target: texts with fewer have lost theirs
ALREADY_ENDED = "the run already ended at step {}; raise train.epochs or train.max_steps to train longer"


def recipe_to_run(command: str, words: list[str], flags: dict[str, Any], resume: Path | None) -> Recipe:
    """Returns the recipe of a run, after every check that needs no heavy library.

    Args:
        command: "train" or "pretrain".
        words: the command's recipe file and ``key=value`` overrides.
        flags: recipe keys set by flags; ``None`` for flags that are not set.
        resume: the run or checkpoint to resume; ``None`` for a new run.

    Raises:
        UsageError: the recipe contradicts itself, or is for another command.
        SpectraError: a source or model that it names does not exist.
    """
    from spectra_nsa.training.checks import check_names
    from spectra_nsa.training.jobs import check_command, checked_recipe

    if resume is not None:
        check_command(resume, command)
    recipe = checked_recipe(read_recipe(words, flags, resume), command)
    check_names(recipe)
    return recipe


def read_recipe(words: list[str], flags: dict[str, Any], resume: Path | None = None) -> Recipe:
    """Reads the recipe that words (a file, ``key=value``) and flags describe.

    Raises:
        UsageError: two recipe files, both a size and a start, a file that differs from the recipe of the run to resume,
            or a recipe that `load_recipe` rejects.
    """
    from spectra_nsa.config.recipe import load_run_recipe

    files = [word for word in words if word.endswith((".yaml", ".yml"))]
    overrides = [word for word in words if word not in files]
    if len(files) > 1:
        raise UsageError(f"one recipe at a time, not {' and '.join(files)}.")

    file = Path(files[0]) if files else None
    if resume is None:
        return load_run_recipe(file, overrides, flags=flags)
    from spectra_nsa.training.runs.checkpoints import run_of

    recipe = load_run_recipe(run_of(resume) / "recipe.yaml", overrides, flags=flags)
    if file is not None:
        _check_same_recipe(file, load_run_recipe(file, overrides, flags=flags), resume, recipe)
    return recipe


def _check_same_recipe(file: Path, file_recipe: Recipe, run: Path, recipe: Recipe) -> None:
    """Checks that a recipe file passed with --resume equals the run's recipe."""
    from spectra_nsa.config.sections import PretrainSection
    from spectra_nsa.report.compare import differing

    differences = differing(recipe.model_dump(exclude={"output"}), file_recipe.model_dump(exclude={"output"}))
    if file_recipe.name is None:
        differences.pop("name", None)
    if file_recipe.pretrain is None and recipe.pretrain == PretrainSection():
        differences.pop("pretrain", None)
    if differences:
        first = list(differences.items())[:3]
        shown = "; ".join(f"{key} was {was!r}, is {now!r} in the file" for key, (was, now) in first)
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UsageError(
            f"{file} is not the recipe of {run}: {shown}{more}. A run resumes with its own recipe: leave the file "
            "out, and pass changes as KEY=VALUE, such as train.epochs=3."
        )


def show_plan(plan: Callable[[], dict[str, Any]], readable: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """Prints the plan of a dry run, in the first process only."""
    if os.environ.get("RANK", "0") != "0":
        return
    facts = plan()
    if as_json:
        print_json(facts, indent=2)
    else:
        print(readable(facts))


def planned_step(resume: Path | None) -> int | None:
    """Returns the step that a run would resume from: 0 if it has no checkpoint, ``None`` for a new run.

    Raises:
        SpectraError: the checkpoints are damaged.
    """
    from spectra_nsa.training.runs.checkpoints import find_resume_point

    return find_resume_point(resume).step if resume is not None else None


def resume_sentence(plan: Mapping[str, Any]) -> str:
    """Returns where a run resumes as a sentence with a trailing space; empty for a new run."""
    from spectra_nsa.training.runs.start_line import resume_phrase

    if plan["first_step"] is None:
        return ""
    return f"{resume_phrase(plan['steps'], plan['first_step']).capitalize()}. "


def changed_keys(plan: Mapping[str, Any]) -> str:
    """Returns the keys of a planned recipe that differ from the defaults, as YAML."""
    import yaml

    text: str = yaml.safe_dump(plan["changed"], sort_keys=False, allow_unicode=True)
    return text


def exit_if_interrupted(result: RunResult, command: str) -> None:
    """Exits with status 130 if Ctrl-C stopped the run, and prints how to resume it.

    Raises:
        typer.Exit: the run was interrupted.
    """
    from spectra_nsa.core.processes import is_first

    if not result.interrupted:
        return
    if is_first():
        line = f"stopped at step {result.steps}. Resume it with: spectra {command} --resume {result.folder}"
        print(line, file=sys.stderr)
    raise typer.Exit(130)


def result_facts(result: RunResult) -> dict[str, Any]:
    """Returns a run's result as printed by --json."""
    facts = {
        "schema": 1,
        "model": str(result.folder / "model"),
        "run": str(result.folder),
        "steps": result.steps,
        "first_step": result.first_step,
        "seconds": round(result.seconds, 1),
        "quarantined": result.quarantined,
    }
    if result.pairs_per_second is not None:
        facts["pairs_per_second"] = round(result.pairs_per_second, 2)
    facts |= {"best": result.best, "start": result.start, "ended": result.ended}
    if result.backup is not None:
        facts["backup"] = asdict(result.backup)
    return facts


def duration(result: RunResult) -> str:
    """Returns a run's number of steps and duration, or a note that the run had already ended."""
    if result.steps == result.first_step:
        return ALREADY_ENDED.format(result.steps)
    early = "; stopped early (train.patience)" if result.ended == "stopped early" else ""
    return f"{counted(result.steps - result.first_step, 'step')} in {result.seconds:.0f} s{early}"


def best_figures(result: RunResult, digits: int) -> str:
    """Returns the dev metrics of the model with their values at the start; empty without a dev set or without steps."""
    if result.steps == result.first_step:
        return ""
    figures = []
    for name, value in result.best.items():
        start = result.start.get(name)
        if start is None or value > start:
            at_start = "" if start is None else f" ({start:.{digits}f} at the start)"
            figures.append(f", best {name} {value:.{digits}f}{at_start}")
        else:
            relation = "below" if value < start else "no better than"
            figures.append(f", {name} {value:.{digits}f}, {relation} the start's {start:.{digits}f}")
    return "".join(figures)


def warn_if_not_better(best: Mapping[str, float], start: Mapping[str, float], lost: str = "") -> None:
    """Warns on stderr about each dev metric (higher is better) that is not better than at the start.

    Args:
        best: the metrics by name.
        start: those at the start.
        lost: what `lost_terms` returns.
    """
    for name, value in best.items():
        if value <= start.get(name, value - 1):
            remedy = "a lower train.lr, more data or longer training may help."
            line = f"{lost}Then {remedy}" if lost else remedy
            print(f"spectra: warning: {name} is not better than at the start: {line}", file=sys.stderr)


def lost_terms(folder: Path, recipe: Recipe) -> str:
    """Returns how many terms the texts of a sparse encoder lost in a run, and what keeps them; empty if they did not.

    Args:
        folder: `runs/NAME`.
        recipe: the run's.
    """
    from spectra_nsa.report.run_log import read_run
    from spectra_nsa.report.run_status import run_status

    if recipe.sparse is None:
        return ""
    status, lost = run_status(read_run(folder).rows, now=0), ""
    for side, target in (("query", recipe.sparse.query_active), ("document", recipe.sparse.document_active)):
        first, last = (status[name].get(f"{side}_active") for name in ("health_first", "health"))
        if first is None or last is None or last >= _LOST * (first if target is None else min(first, target)):
            continue
        weights = [name for name in recipe.loss.terms.model_dump() if name.startswith(f"{side}_")]
        used = [name for name in weights if getattr(recipe.loss.terms, name).weight]
        keys = " and ".join(f"loss.terms.{name}.weight" for name in used)
        remedy = f"raise sparse.{side}_active" if target is not None else f"lower {keys}, or set sparse.{side}_active"
        lost += f"a {side} has {last:.0f} active terms, {first:.0f} at the start: {remedy}. "
    return lost
