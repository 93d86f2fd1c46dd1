"""`spectra train`: a recipe, overrides and flags in, `runs/NAME/` out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import DryRun, GradientCheckpointing, JsonAtEnd, MaxSteps, Name, Resume, Seed, Size, Words
from spectra_nsa.core.errors import UsageError

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe

ENDED_ALREADY = "the run had ended already, at step {}; train.epochs or train.max_steps makes it longer"


def train_command(
    words: Words = None,
    size: Size = None,
    start: Annotated[str | None, typer.Option("--model", "-m", help="Warm start: a folder or a Hub name.")] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="What to train on.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.001, help="Passes over the data.")] = None,
    max_steps: MaxSteps = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Pairs a step.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=3, help="Longest text in tokens, in the saved model too; train.max_length: here only."),
    ] = None,
    name: Name = None,
    seed: Seed = None,
    resume: Resume = None,
    gradient_checkpointing: GradientCheckpointing = False,
    no_matryoshka: Annotated[bool, typer.Option("--no-matryoshka", help="Train the full width only.")] = False,
    no_spectral: Annotated[bool, typer.Option("--no-spectral", help="Plain attention.")] = False,
    no_depth_mix: Annotated[bool, typer.Option("--no-depth-mix", help="The last layer alone.")] = False,
    no_entity: Annotated[bool, typer.Option("--no-entity", help="No entity vector.")] = False,
    no_anchor: Annotated[bool, typer.Option("--no-anchor", help="Do not train the anchors.")] = False,
    no_bridge: Annotated[bool, typer.Option("--no-bridge", help="Do not train the hash.")] = False,
    no_ranking: Annotated[bool, typer.Option("--no-ranking", help="Do not train the ranking vector.")] = False,
    no_anomaly: Annotated[bool, typer.Option("--no-anomaly", help="Do not train the anomaly head.")] = False,
    dry_run: DryRun = False,
    as_json: JsonAtEnd = False,
) -> None:
    """Train a model on pairs, triplets or scored pairs; docs/reference/recipe.md has every KEY=VALUE.

    Example: spectra train --model sentence-transformers/all-MiniLM-L6-v2 --data pairs.jsonl train.lr=5e-5
    """
    flags: dict[str, Any] = {
        "model.size": size,
        "model.start": start,
        "data.train": data,
        "train.epochs": epochs,
        "train.max_steps": max_steps,
        "train.batch": batch,
        "model.max_length": max_length,
        "name": name,
        "train.seed": seed,
        "train.gradient_checkpointing": gradient_checkpointing or None,
    }
    off = {
        "matryoshka": no_matryoshka,
        "spectral": no_spectral,
        "depth_mix": no_depth_mix,
        "entity": no_entity,
        "anchor": no_anchor,
        "bridge": no_bridge,
        "ranking": no_ranking,
        "anomaly": no_anomaly,
    }
    flags |= {f"model.{part}": False for part, is_off in off.items() if is_off}
    from spectra_nsa.training.checks import check_names, check_recipe, check_verb

    if resume is not None:
        check_verb(resume, "train")
    recipe = read_recipe(words or [], flags, resume)
    check_recipe(recipe)
    check_names(recipe)
    if dry_run:
        if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
            return
        plan = _plan(recipe, resume)
        print(json.dumps(plan, indent=2) if as_json else _readable(plan))
        return
    _train(recipe, resume, as_json)


def read_recipe(words: list[str], flags: dict[str, Any], resume: Path | None = None) -> Recipe:
    """The recipe that words (a file, ``key=value``) and flags make: what else takes recipes reads them the same way.

    Raises:
        UsageError: two files, two beginnings, a file that is not the recipe of the run to go on with, or what
            `load_recipe` refuses.
    """
    from spectra_nsa.config.presets import DEFAULT
    from spectra_nsa.config.recipe import load_recipe

    files = [word for word in words if word.endswith((".yaml", ".yml"))]
    overrides = [word for word in words if word not in files]
    if len(files) > 1:
        raise UsageError(f"one recipe at a time, not {' and '.join(files)}.")

    def read(path: Path | None) -> Recipe:
        recipe = load_recipe(path, overrides, flags=flags)
        if recipe.model.size is not None and recipe.model.start is not None:
            raise UsageError("model.size is for training from scratch, model.start for a warm start: give one of them.")
        if recipe.model.size is None and recipe.model.start is None:
            return load_recipe(path, overrides, flags=flags | {"model.size": DEFAULT})
        return recipe

    given = Path(files[0]) if files else None
    if resume is None:
        return read(given)
    from spectra_nsa.training.runs.checkpoints import run_of

    own = read(run_of(resume) / "recipe.yaml")
    if given is not None:
        _check_own(given, read(given), resume, own)
    return own


def _check_own(file: Path, given: Recipe, run: Path, own: Recipe) -> None:
    """That a recipe file given with --resume is the run's: a run goes on with its own, changed by key=value."""
    from spectra_nsa.config.sections import PretrainSection
    from spectra_nsa.report.compare import differing

    apart = differing(own.model_dump(exclude={"output"}), given.model_dump(exclude={"output"}))
    if given.name is None:
        apart.pop("name", None)
    if given.pretrain is None and own.pretrain == PretrainSection():
        apart.pop("pretrain", None)
    if apart:
        shown = "; ".join(f"{key} was {was!r}, is {now!r} in the file" for key, (was, now) in list(apart.items())[:3])
        more = f" and {len(apart) - 3} more" if len(apart) > 3 else ""
        raise UsageError(
            f"{file} is not the recipe of {run}: {shown}{more}. A run goes on with its own recipe: leave the file out, "
            "and change a key by KEY=VALUE, such as train.epochs=3."
        )


def _plan(recipe: Recipe, resume: Path | None = None) -> dict[str, Any]:
    """Loads data and shapes, trains nothing."""
    from spectra_nsa.models.size import Workload, inspect_model
    from spectra_nsa.training.runs.checkpoints import first_step
    from spectra_nsa.training.runs.folder import check_free

    began = first_step(resume)
    if recipe.name is not None and resume is None:
        check_free(Path(recipe.output) / recipe.name)
    from spectra_nsa.config.terms import live_terms
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.training.checks import check_data
    from spectra_nsa.training.data.rows import load_training_data
    from spectra_nsa.training.init.start import planned_config
    from spectra_nsa.training.loop.build import steps_of

    config, length = planned_config(recipe)
    data = load_training_data(recipe.data, seed=recipe.train.seed, quarantine=None, distill=recipe.distill)
    check_data(recipe, data)
    texts, length = len(data.columns), min(length, recipe.train.max_length or length)
    batch = min(recipe.train.batch, len(data.train))
    if recipe.train.cached_batch is not None:
        batch = min(batch, max(1, recipe.train.cached_batch // (texts * length)))  # rows in memory at a time
    workload = Workload(
        batch=batch,
        texts=texts,
        length=length,
        checkpointing=recipe.train.gradient_checkpointing,
    )
    facts = inspect_model(config, workload)
    return {
        "recipe": recipe.model_dump(),
        "changed": recipe.model_dump(exclude_defaults=True),
        "rows": len(data.train),
        "dev_rows": len(data.dev) if data.dev is not None else 0,
        "left_out": data.left_out,
        "quarantined": data.quarantined,
        "steps": steps_of(recipe, len(data.train)),
        "first_step": began,
        "parameters": facts["parameters"],
        "memory_gb": facts["memory_gb"]["training"],
        "terms": live_terms(recipe, data.train.column_names),
        "precision": resolve_precision(recipe.train.precision),
    }


def _readable(plan: dict[str, Any]) -> str:
    import yaml

    left_out = f"{plan['left_out']} left out (they share a text with a dev row), " if plan["left_out"] else ""
    head = (
        f"{plan['rows']:,} training rows, {plan['dev_rows']} dev rows, {left_out}{plan['quarantined']} quarantined; "
        f"{plan['steps']:,} steps in {plan['precision']}; {plan['parameters'] / 1e6:.1f} M parameters, "
        f"about {plan['memory_gb']} GB; loss: {', '.join(plan['terms'])}. {from_where(plan)}Nothing was trained."
    )
    return yaml.safe_dump(plan["changed"], sort_keys=False, allow_unicode=True) + head


def from_where(plan: Mapping[str, Any]) -> str:
    """Where a run that is resumed goes on, as a sentence and a blank; empty for a new one."""
    from spectra_nsa.training.runs.messages import going_on

    if plan["first_step"] is None:
        return ""
    return f"{going_on(plan['steps'], plan['first_step']).capitalize()}. "


def _train(recipe: Recipe, resume: Path | None, as_json: bool) -> None:
    from spectra_nsa.core.processes import is_first
    from spectra_nsa.training.run import train
    from spectra_nsa.workflows.search import remember_model

    result = train(recipe, resume=resume)
    if not is_first():
        if result.interrupted:
            raise typer.Exit(130)
        return
    if result.interrupted:
        print(f"stopped at step {result.steps}. Go on with: spectra train --resume {result.folder}", file=sys.stderr)
        raise typer.Exit(130)
    model = result.folder / "model"
    remember_model(model)
    facts = {
        "schema": 1,
        "model": str(model),
        "run": str(result.folder),
        "steps": result.steps,
        "first_step": result.first_step,
        "seconds": round(result.seconds, 1),
        "pairs_per_second": round(result.pairs_per_second, 2),
        "best": result.best,
        "start": result.start,
        "ended": result.ended,
    }
    if result.backup is not None:
        facts["backup"] = asdict(result.backup)
    if result.steps > result.first_step:
        warn_of_no_better(result.best, result.start)
    if as_json:
        print(json.dumps(facts))
        return
    started = {name: f" ({value:.4f} at the start)" for name, value in result.start.items()}
    best = "".join(f", best {name} {value:.4f}{started.get(name, '')}" for name, value in result.best.items())
    if result.steps == result.first_step:
        print(ENDED_ALREADY.format(result.steps))
        print(f"model: {model}")
        return
    early = "; stopped early, by train.patience" if result.ended == "stopped early" else ""
    done = f"{result.steps - result.first_step} steps in {result.seconds:.0f} s{early}"
    print(f"{done} ({result.pairs_per_second:.1f} pairs/s, measuring and saving included){best}")
    print(f"model: {model}")
    print(f"report: {result.folder / 'report.html'}")
    if result.backup is not None:
        lost = f", not copied: {', '.join(result.backup.lost)}" if result.backup.lost else ""
        print(f"backup: {recipe.backup.to}, {result.backup.failures} failed attempts{lost}")


def warn_of_no_better(best: Mapping[str, float], start: Mapping[str, float]) -> None:
    """Says on standard error by which dev metrics no step was better than the start."""
    for name, value in best.items():
        if value <= start.get(name, value - 1):
            print(
                f"spectra: warning: no step was better than the start by {name}: a lower train.lr, more data or longer "
                "training may help.",
                file=sys.stderr,
            )
