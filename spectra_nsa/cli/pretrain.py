"""`spectra pretrain`: texts of any source in, a masked-LM model in `runs/NAME/` out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectra_nsa.cli.options import DryRun, GradientCheckpointing, JsonAtEnd, MaxSteps, Name, Resume, Seed, Size, Words
from spectra_nsa.cli.train import ENDED_ALREADY, from_where, read_recipe

if TYPE_CHECKING:
    from spectra_nsa.config.recipe import Recipe
    from spectra_nsa.training.jobs.masked_lm import PretrainResult


def pretrain_command(
    words: Words = None,
    size: Size = None,
    start: Annotated[str | None, typer.Option("--model", "-m", help="From a checkpoint: a folder or Hub name.")] = None,
    data: Annotated[list[str] | None, typer.Option("--data", "-d", help="A source of texts; may be repeated.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.001, help="Passes over the texts.")] = None,
    max_steps: MaxSteps = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Packed sequences a step.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=3, help="Tokens of a sequence, in the saved model too; train.max_length: here only."),
    ] = None,
    name: Name = None,
    seed: Seed = None,
    resume: Resume = None,
    gradient_checkpointing: GradientCheckpointing = False,
    dry_run: DryRun = False,
    as_json: JsonAtEnd = False,
) -> None:
    """Pretrain a masked language model on texts, packed, whole words masked.

    Example: spectra pretrain --size small --data texts.jsonl --name base
    """
    flags: dict[str, Any] = {
        "model.size": size,
        "model.start": start,
        "data.train": data[0] if data else None,
        "pretrain.also": data[1:] if data and len(data) > 1 else None,
        "train.epochs": epochs,
        "train.max_steps": max_steps,
        "train.batch": batch,
        "model.max_length": max_length,
        "name": name,
        "train.seed": seed,
        "train.gradient_checkpointing": gradient_checkpointing or None,
    }
    from spectra_nsa.training.checks import check_names, check_verb
    from spectra_nsa.training.jobs.masked_lm import check_recipe

    if resume is not None:
        check_verb(resume, "pretrain")
    recipe = check_recipe(read_recipe(words or [], flags, resume))
    check_names(recipe)
    if dry_run:
        plan = _plan(recipe, resume)
        print(json.dumps(plan, indent=2) if as_json else _readable(plan))
        return
    _pretrain(recipe, resume, as_json)


def _plan(recipe: Recipe, resume: Path | None = None) -> dict[str, Any]:
    """Loads texts and model, packs, trains nothing."""
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.training.checks import check_reporters
    from spectra_nsa.training.data.documents import load_texts
    from spectra_nsa.training.jobs.masked_lm import batch_of, check_dev, open_masked, packed
    from spectra_nsa.training.loop.build import steps_of
    from spectra_nsa.training.runs.checkpoints import first_step

    check_reporters(recipe)
    began = first_step(resume)
    texts = load_texts(recipe, quarantine=None)
    check_dev(recipe, texts)
    around, model = open_masked(recipe)
    train, dev, room = packed(recipe, around, texts)
    sized = batch_of(recipe, room)
    return {
        "recipe": recipe.model_dump(),
        "changed": recipe.model_dump(exclude_defaults=True),
        "texts": len(texts.train),
        "dev_texts": len(texts.dev),
        "left_out": texts.left_out,
        "quarantined": texts.quarantined,
        "documents": len(train.documents),
        "tokens": len(train.documents.ids),
        "sequences": len(train),
        "dev_sequences": len(dev) if dev is not None else 0,
        "length": room,
        "steps": steps_of(sized, len(train)),
        "first_step": began,
        "batch": sized.train.batch,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "precision": resolve_precision(recipe.train.precision),
    }


def _readable(plan: dict[str, Any]) -> str:
    import yaml

    left_out = f"{plan['left_out']:,} left out (they are among the held-out ones), " if plan["left_out"] else ""
    head = (
        f"{plan['texts']:,} texts, {plan['dev_texts']:,} held out, {left_out}{plan['quarantined']} quarantined; "
        f"{plan['tokens']:,} tokens in {plan['sequences']:,} sequences of at most {plan['length']}; "
        f"{plan['steps']:,} steps of {plan['batch']} in {plan['precision']}; "
        f"{plan['parameters'] / 1e6:.1f} M parameters. {from_where(plan)}Nothing was trained."
    )
    return yaml.safe_dump(plan["changed"], sort_keys=False, allow_unicode=True) + head


def _pretrain(recipe: Recipe, resume: Path | None, as_json: bool) -> None:
    from spectra_nsa.core.processes import is_first
    from spectra_nsa.training.jobs.masked_lm import pretrain

    result = pretrain(recipe, resume=resume)
    if result.interrupted:
        if is_first():
            goes_on = f"spectra pretrain --resume {result.folder}"
            print(f"stopped at step {result.steps}. Go on with: {goes_on}", file=sys.stderr)
        raise typer.Exit(130)
    if not is_first():
        return
    facts = {
        "schema": 1,
        "model": str(result.folder / "model"),
        "run": str(result.folder),
        "steps": result.steps,
        "first_step": result.first_step,
        "seconds": round(result.seconds, 1),
        "best": result.best,
        "start": result.start,
        "ended": result.ended,
    }
    if result.backup is not None:
        facts["backup"] = asdict(result.backup)
    print(json.dumps(facts) if as_json else _said(result))


def _said(result: PretrainResult) -> str:
    started = {name: f" ({value:.1f} at the start)" for name, value in result.start.items()}
    best = "".join(f", best {name} {value:.1f}{started.get(name, '')}" for name, value in result.best.items())
    early = "; stopped early, by train.patience" if result.ended == "stopped early" else ""
    done = f"{result.steps - result.first_step} steps in {result.seconds:.0f} s{early}{best}"
    if result.steps == result.first_step:
        done = ENDED_ALREADY.format(result.steps)
    model = result.folder / "model"
    return f"{done}\nmodel: {model}\nNow train it: spectra train --model {model} --data PAIRS"
