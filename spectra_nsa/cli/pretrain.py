"""`spectra pretrain`: trains a masked language model on texts, and writes `runs/NAME/`."""

from __future__ import annotations

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
    planned_step,
    recipe_to_run,
    result_facts,
    resume_sentence,
    show_plan,
)
from spectra_nsa.core.console import print_json
from spectra_nsa.core.counts import counted

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe
    from spectra_nsa.training.run import RunResult


def pretrain_command(
    words: RecipeWords = None,
    size: Size = None,
    start: Annotated[
        str | None, typer.Option("--model", "-m", help="Model to start from: a folder or a Hub name.")
    ] = None,
    data: Annotated[list[str] | None, typer.Option("--data", "-d", help="A source of texts. Repeatable.")] = None,
    columns: RecipeColumns = None,
    epochs: Annotated[float | None, typer.Option(min=0.001, help="Passes over the texts.")] = None,
    max_steps: MaxSteps = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Packed sequences per step.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=3, help="Tokens per sequence, in training and in the saved model."),
    ] = None,
    name: Name = None,
    seed: Seed = None,
    resume: Resume = None,
    gradient_checkpointing: GradientCheckpointing = False,
    dry_run: DryRun = False,
    as_json: JsonAtEnd = False,
) -> None:
    """Pretrain a masked language model on packed texts, masking whole words.

    Example: spectra pretrain --size small --data texts.jsonl --name base
    """
    flags: dict[str, Any] = {
        "model.size": size,
        "model.start": start,
        "data.train": data[0] if data else None,
        "data.columns": recipe_columns(columns, words or []),
        "pretrain.extra_sources": data[1:] if data and len(data) > 1 else None,
        "train.epochs": epochs,
        "train.max_steps": max_steps,
        "train.batch": batch,
        "model.max_length": max_length,
        "name": name,
        "train.seed": seed,
        "train.gradient_checkpointing": gradient_checkpointing or None,
    }
    recipe = recipe_to_run("pretrain", words or [], flags, resume)
    if dry_run:
        show_plan(lambda: _plan(recipe, resume), _plan_text, as_json)
        return
    _pretrain(recipe, resume, as_json)


def _plan(recipe: Recipe, resume: Path | None = None) -> dict[str, Any]:
    """Returns what a run would do. Loads the model, loads and packs the texts, and trains nothing."""
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.training.jobs.masked_lm import MaskedLMJob
    from spectra_nsa.training.loop.arguments import steps_of

    first_step = planned_step(resume)
    job = MaskedLMJob(recipe)
    job.load_rows(quarantine=None)
    job.check_rows()
    job.open_model()
    job.prepare(resumed=resume is not None)
    sized = job.sized_recipe
    return {
        "recipe": recipe.model_dump(),
        "changed": recipe.model_dump(exclude_defaults=True),
        "texts": len(job.texts.train),
        "dev_texts": len(job.texts.dev),
        "left_out": job.texts.left_out,
        "quarantined": job.texts.quarantined,
        "documents": len(job.train.documents),
        "tokens": len(job.train.documents.ids),
        "sequences": len(job.train),
        "dev_sequences": len(job.dev) if job.dev is not None else 0,
        "length": job.length,
        "steps": steps_of(sized, len(job.train)),
        "first_step": first_step,
        "batch": sized.train.batch,
        "parameters": sum(weight.numel() for weight in job.model.parameters()),
        "precision": resolve_precision(recipe.train.precision),
    }


def _plan_text(plan: dict[str, Any]) -> str:
    left_out = f"{plan['left_out']:,} left out (equal to a held-out text), " if plan["left_out"] else ""
    return changed_keys(plan) + (
        f"{counted(plan['texts'], 'text')}, {plan['dev_texts']:,} held out, {left_out}"
        f"{plan['quarantined']:,} quarantined; "
        f"{counted(plan['tokens'], 'token')} in {counted(plan['sequences'], 'sequence')} of at most {plan['length']}; "
        f"{counted(plan['steps'], 'step')} of {plan['batch']} in {plan['precision']}; "
        f"{plan['parameters'] / 1e6:.1f} M parameters. {resume_sentence(plan)}Nothing was trained."
    )


def _pretrain(recipe: Recipe, resume: Path | None, as_json: bool) -> None:
    from spectra_nsa.core.processes import is_first
    from spectra_nsa.training.run import pretrain

    result = pretrain(recipe, resume=resume)
    exit_if_interrupted(result, "pretrain")
    if is_first():
        if as_json:
            print_json(result_facts(result))
        else:
            print(_summary(result))


def _summary(result: RunResult) -> str:
    model = result.folder / "model"
    done = f"{duration(result)}{best_figures(result, digits=1)}"
    return f"{done}\nmodel: {model}\nNow train it: spectra train --model {model} --data PAIRS"
