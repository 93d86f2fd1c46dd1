"""`spectra train`: trains a model by a recipe, overrides and flags, and writes `runs/NAME/`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import (
    DryRun,
    GradientCheckpointing,
    JsonAtEnd,
    MaxSteps,
    Name,
    RecipeColumns,
    RecipeWords,
    Resume,
    Seed,
    Size,
    recipe_columns,
)
from spectra_nsa.cli.runs import (
    best_figures,
    changed_keys,
    duration,
    exit_if_interrupted,
    lost_terms,
    planned_step,
    recipe_to_run,
    result_facts,
    resume_sentence,
    show_plan,
    warn_if_not_better,
)
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe


ENOUGH_STEPS = 50
FEW_STEPS = "{} are few for a training; more epochs (train.epochs) or smaller batches (train.batch) make more steps"


def train_command(
    words: RecipeWords = None,
    size: Size = None,
    start: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to start from: a folder or a Hub name.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help="Source of training rows.")] = None,
    columns: RecipeColumns = None,
    epochs: Annotated[float | None, typer.Option(min=0.001, help="Passes over the data.")] = None,
    max_steps: MaxSteps = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Pairs per step.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=3, help="Cut texts after this many tokens, in training and in the saved model."),
    ] = None,
    name: Name = None,
    seed: Seed = None,
    resume: Resume = None,
    gradient_checkpointing: GradientCheckpointing = False,
    no_matryoshka: Annotated[bool, typer.Option("--no-matryoshka", help="Train the full width only.")] = False,
    no_spectral: Annotated[bool, typer.Option("--no-spectral", help="Use plain attention.")] = False,
    no_depth_mix: Annotated[bool, typer.Option("--no-depth-mix", help="Use the last layer only.")] = False,
    no_entity: Annotated[bool, typer.Option("--no-entity", help="Leave out the entity vector.")] = False,
    no_anchor: Annotated[bool, typer.Option("--no-anchor", help="Do not train the spectral anchors.")] = False,
    no_bridge: Annotated[bool, typer.Option("--no-bridge", help="Do not train the binary codes.")] = False,
    no_ranking: Annotated[bool, typer.Option("--no-ranking", help="Do not train the ranking vector.")] = False,
    no_anomaly: Annotated[bool, typer.Option("--no-anomaly", help="Do not train the anomaly head.")] = False,
    dry_run: DryRun = False,
    as_json: JsonAtEnd = False,
) -> None:
    """Train a model on pairs, triplets or scored pairs; every KEY is in the documentation, under Recipe keys.

    Example: spectra train --model sentence-transformers/all-MiniLM-L6-v2 --data pairs.jsonl train.lr=5e-5
    """
    flags: dict[str, Any] = {
        "model.size": size,
        "model.start": start,
        "data.train": data,
        "data.columns": recipe_columns(columns, words or []),
        "train.epochs": epochs,
        "train.max_steps": max_steps,
        "train.batch": batch,
        "model.max_length": max_length,
        "name": name,
        "train.seed": seed,
        "train.gradient_checkpointing": gradient_checkpointing or None,
    }
    disabled = {
        "matryoshka": no_matryoshka, "spectral": no_spectral, "depth_mix": no_depth_mix, "entity": no_entity,
        "anchor": no_anchor, "bridge": no_bridge, "ranking": no_ranking, "anomaly": no_anomaly,
    }  # fmt: skip
    flags |= {f"model.{part}": False for part, is_disabled in disabled.items() if is_disabled}
    recipe = recipe_to_run("train", words or [], flags, resume)
    if dry_run:
        show_plan(lambda: _plan(recipe, resume), _plan_text, as_json)
        return
    _train(recipe, resume, as_json)


def _plan(recipe: Recipe, resume: Path | None = None) -> dict[str, Any]:
    """Returns what a run would do. Loads the rows and the model's shape, and trains nothing."""
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.models.size import Workload, inspect_model, training_gb
    from spectra_nsa.training.runs.claim import check_free

    first_step = planned_step(resume)
    if recipe.name is not None and resume is None:
        check_free(Path(recipe.output) / recipe.name)
    from spectra_nsa.training.checks import check_data, data_notes, expert_notes, live_terms_of, plan_sets
    from spectra_nsa.training.data.mixing import epoch_rows
    from spectra_nsa.training.data.rows import load_training_data
    from spectra_nsa.training.init.sparse_start import planned_sparse
    from spectra_nsa.training.init.start import planned_config
    from spectra_nsa.training.jobs.pairs import experts_of
    from spectra_nsa.training.loop.arguments import steps_of

    planned = planned_config(recipe) if recipe.sparse is None else None
    sparse = planned_sparse(recipe) if recipe.sparse is not None else None
    experts = experts_of(planned[0]) if planned is not None else None
    length = planned[1] if planned is not None else sparse[3] if sparse is not None else 0
    data = load_training_data(recipe.data, seed=recipe.train.seed, quarantine=None, distill=recipe.distill)
    check_data(recipe, data)
    texts, length = (
        max(len(part.columns) for part in data.parts.values()),
        min(length, recipe.train.max_length or length),
    )
    batch = min(recipe.train.batch, len(data.train))
    if recipe.train.cached_pass_tokens is not None:
        batch = min(batch, max(1, recipe.train.cached_pass_tokens // (texts * length)))  # rows in memory at a time
    workload = Workload(
        batch=batch,
        texts=texts,
        length=length,
        checkpointing=recipe.train.gradient_checkpointing,
    )
    if planned is not None:
        facts = inspect_model(planned[0], workload)
        parameters, memory = facts["parameters"], facts["memory_gb"]["training"]
    else:
        assert sparse is not None
        parameters, memory = sparse[0], training_gb(*sparse[:3], workload)
    return {
        "recipe": recipe.model_dump(),
        "changed": recipe.model_dump(exclude_defaults=True),
        "rows": len(data.train),
        "sets": plan_sets(recipe, data, experts is not None),
        "dev_rows": len(data.dev) if data.dev is not None else 0,
        "left_out": data.left_out,
        "quarantined": data.quarantined,
        "notes": [*data_notes(recipe, data), *expert_notes(recipe, experts)],
        "steps": steps_of(recipe, epoch_rows(recipe, data)),
        "first_step": first_step,
        "parameters": parameters,
        "experts": facts["shape"].get("experts") if planned is not None else None,
        "memory_gb": memory,
        "memory_for": {"batch": batch, "texts": texts, "length": length},
        "terms": live_terms_of(recipe, data, experts is not None),
        "precision": resolve_precision(recipe.train.precision),
    }


def _plan_text(plan: dict[str, Any]) -> str:
    left_out = f"{plan['left_out']} left out (they share a text with a dev row), " if plan["left_out"] else ""
    memory = plan["memory_for"]
    texts = f"{memory['batch']} × {memory['texts']} texts of {memory['length']} tokens"
    size = plan["recipe"]["model"]["size"]
    scratch = "" if size is None else f"\n{_from_scratch(size, plan['parameters'], plan['memory_gb'])}"
    few = [FEW_STEPS.format(counted(plan["steps"], "step"))] if plan["steps"] < ENOUGH_STEPS else []
    sets = "".join(
        f"\n{name}: {counted(part['rows'], 'row')}, {counted(part['batches'], 'batch')} an epoch; loss: "
        f"{', '.join(part['terms'])}"
        for name, part in plan["sets"].items()
    )
    experts = f"experts: {plan['experts']}, " if plan["experts"] else ""
    notes = "".join(f"\nnote: {note}" for note in [*plan["notes"], *few])
    return changed_keys(plan) + (
        f"{counted(plan['rows'], 'training row')}, {counted(plan['dev_rows'], 'dev row')}, {left_out}"
        f"{plan['quarantined']:,} quarantined; "
        f"{_length(plan)} in {plan['precision']}; {plan['parameters'] / 1e6:.1f} M parameters, "
        f"{experts}"
        f"about {plan['memory_gb']} GB for {texts}; loss: {', '.join(plan['terms'])}. "
        f"{resume_sentence(plan)}Nothing was trained.{scratch}{sets}{notes}"
    )


def _length(plan: dict[str, Any]) -> str:
    """Returns the number of steps and the recipe keys that it follows from, with the learning rate."""
    train = plan["recipe"]["train"]
    keys = ["max_steps" if train["max_steps"] else "epochs", "batch", *["accumulation"] * (train["accumulation"] > 1)]
    shown = ", ".join(f"train.{key}={train[key]:g}" for key in (*keys, "lr"))
    return f"{counted(plan['steps'], 'step')} ({shown})"


def _from_scratch(size: str, parameters: int, memory_gb: float | None = None) -> str:
    """Returns the line that says that a run starts from a size preset with random weights, and what would not."""
    memory = "" if memory_gb is None else f" and about {memory_gb} GB of memory"
    return (
        f"No model.start: {size} is trained from scratch, with {parameters / 1e6:,.0f} M random weights{memory}. "
        "To fine-tune a model instead, name it with --model."
    )


def _train(recipe: Recipe, resume: Path | None, as_json: bool) -> None:
    from spectra_nsa.core.processes import is_first
    from spectra_nsa.training.run import train
    from spectra_nsa.workflows.search import remember_model

    size = recipe.model.size
    if size is not None and resume is None and is_first():
        from spectra_nsa.models.size import inspect_model, spec_of

        print(_from_scratch(size, inspect_model(spec_of(size))["parameters"]), file=sys.stderr, flush=True)
    result = train(recipe, resume=resume)
    exit_if_interrupted(result, "train")
    if not is_first():
        return
    model = result.folder / "model"
    remember_model(model)
    trained = result.steps > result.first_step
    if trained:
        warn_if_not_better(result.best, result.start, lost_terms(result.folder, recipe))
    if as_json:
        print_json(result_facts(result))
        return
    speed = f" ({result.pairs_per_second:.1f} pairs/s, including evaluation and saving)" if trained else ""
    print(f"{duration(result)}{speed}{best_figures(result, digits=4)}")
    print(f"model: {model}")
    if not trained:
        return
    print(f"report: {result.folder / 'report.html'}")
    if result.backup is not None:
        lost = f", not copied: {', '.join(result.backup.lost)}" if result.backup.lost else ""
        print(f"backup: {recipe.backup.to}, {counted(result.backup.failures, 'failed attempt')}{lost}")
