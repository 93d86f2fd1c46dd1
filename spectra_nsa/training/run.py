"""A training run: recipe in, `runs/NAME/` out."""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core import processes
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.training.runs.folder import (
    backup_of,
    check_rows,
    finish_folder,
    held_by_first,
    place,
    taken_back,
    write_recipe,
)
from spectra_nsa.training.runs.messages import opening

if TYPE_CHECKING:
    from torch import Tensor

    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.loop.trainer import RunTrainer
    from spectra_nsa.training.runs.backup import Backup, Tally


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves.

    Attributes:
        folder: `runs/NAME`.
        model: the best model, in memory.
        steps: steps trained, of this run and of the one it went on from.
        first_step: where this run went on from; 0 for a new one.
        seconds: wall time of the training itself.
        pairs_per_second: throughput of all processes together.
        best: the best dev metric by name, of the kept model; empty without a dev set.
        start: the dev metric before the first step, by name; empty without a dev set and in a resumed run.
        ended: how, in a word or two.
        interrupted: whether Ctrl-C ended it; then `model/` is not written, and `--resume` goes on.
        backup: what became of the copies; ``None`` where the recipe asks for none.
    """

    folder: Path
    model: SpectraSentenceTransformer
    steps: int
    first_step: int
    seconds: float
    pairs_per_second: float
    best: dict[str, float]
    start: dict[str, float]
    ended: str
    interrupted: bool
    backup: Tally | None = None


def train(
    recipe: Recipe | None = None,
    *,
    resume: str | Path | None = None,
    data: TrainingData | None = None,
    deadline: float | None = None,
) -> RunResult:
    """Trains a model by a recipe and writes `runs/NAME/` (docs/reference/files.md).

    Under torchrun or `accelerate launch` every process calls this, and the first one writes.

    Args:
        recipe: what to do; ``None`` only with `resume`.
        resume: a run's folder, or one of its checkpoints: goes on from there, with the run's own recipe unless one
            is given. A run that was stopped before its first checkpoint begins anew.
        data: rows already loaded; ``None`` loads the recipe's.
        deadline: a `time.monotonic()` at which training ends, its schedule fitted to the time; ``None`` for none.

    Raises:
        UsageError: a recipe or a run of `spectra pretrain`.
        SpectraError: unusable data, model, folder or checkpoint, or a checkpoint of another model or other data.
    """
    from spectra_nsa.training.checks import check_recipe, check_verb

    shard = processes.connect()
    if resume is not None:
        check_verb(resume, "train")
    recipe, folder, checkpoint = processes.by_first(functools.partial(place, recipe, resume))
    check_recipe(recipe)
    if shard:  # what `accelerate launch --use_fsdp` asks for
        recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"shard": True})})
    if recipe.train.shard and processes.count() == 1:
        print("spectra: train.shard does nothing in a single process", file=sys.stderr, flush=True)
    with held_by_first(folder):
        return _run(recipe, folder, checkpoint, data, deadline, resumed=resume is not None)


def _run(
    recipe: Recipe,
    folder: Path,
    checkpoint: Path | None,
    data: TrainingData | None,
    deadline: float | None,
    *,
    resumed: bool,
) -> RunResult:
    from spectra_nsa.training.checks import check_data
    from spectra_nsa.training.init.interpolation import start_weights
    from spectra_nsa.training.init.rarity import fit_rarity
    from spectra_nsa.training.init.start import open_start
    from spectra_nsa.training.runs.checkpoints import clear, step_of
    from spectra_nsa.training.runs.resume import check_same

    backup = backup_of(recipe, folder, new=checkpoint is None)
    set_seed(recipe.train.seed)
    given, aside = data, folder / "quarantine"
    written = None if aside.exists() else aside
    data = given if given is not None else _loaded(recipe, aside)
    with taken_back(written):
        check_rows(processes.everyones([len(data.train)]))
        check_data(recipe, data)
        model = open_start(recipe)
        if checkpoint is not None:
            check_same(checkpoint, recipe, model, data)
        # Of a run that goes on, only for what is fitted to its start: how teachers' vectors are turned towards it.
        if recipe.model.words is not None and (checkpoint is None or recipe.distill.teachers):
            _begin_with(model, recipe.model.words, data, said=checkpoint is None)
    if given is None and processes.is_first():
        print(_opening(folder, recipe, data, step_of(checkpoint) if checkpoint else 0), file=sys.stderr, flush=True)
    start = start_weights(model) if recipe.train.interpolate < 1 else None
    if checkpoint is None and recipe.model.entity is not False:
        fit_rarity(model, data.train.select_columns(data.columns))
    if processes.is_first():
        if resumed:
            clear(folder, checkpoint)
        write_recipe(folder, recipe)
    return _fit(recipe, folder, model, data, checkpoint, deadline, backup, start)


def _begin_with(model: SpectraSentenceTransformer, source: str, data: TrainingData, *, said: bool) -> None:
    from spectra_nsa.training.init.words import begin_with_words

    pieces = begin_with_words(model, source, data.train.select_columns(data.columns))
    if said and processes.is_first():
        print(f"words: {pieces:,} pieces begin with what {source} gives for them", file=sys.stderr, flush=True)


def _loaded(recipe: Recipe, quarantine: Path) -> TrainingData:
    """The recipe's rows, the same in all processes; the first one writes the broken rows."""
    from spectra_nsa.training.data.rows import load_training_data

    aside = quarantine if processes.is_first() else None
    with processes.first_before_others():
        return load_training_data(recipe.data, seed=recipe.train.seed, quarantine=aside, distill=recipe.distill)


def _opening(folder: Path, recipe: Recipe, data: TrainingData, first_step: int) -> str:
    """What a run begins with, in a line."""
    from spectra_nsa.training.loop.build import steps_of

    counted = [f"{len(data.train):,} rows"]
    if data.dev is not None:
        counted.append(f"{len(data.dev):,} to watch by")
    if data.left_out:
        counted.append(f"{data.left_out:,} left out (they share a text with those)")
    return opening(folder, steps_of(recipe, len(data.train)), counted, data.quarantined, first_step)


def _fit(
    recipe: Recipe,
    folder: Path,
    model: SpectraSentenceTransformer,
    data: TrainingData,
    checkpoint: Path | None,
    deadline: float | None,
    backup: Backup | None,
    start: dict[str, Tensor] | None,
) -> RunResult:
    import torch

    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.training.init.interpolation import draw_back
    from spectra_nsa.training.loop.build import build_trainer, shares_out
    from spectra_nsa.training.loop.callbacks import StopOnInterrupt
    from spectra_nsa.training.runs.checkpoints import step_of
    from spectra_nsa.training.runs.ending import closed, reason_of

    model._model_card_text = None  # a saved model's card tells of its own training, not of this one
    trainer = build_trainer(recipe, folder, model, data, deadline, backup)
    stop = StopOnInterrupt()
    trainer.add_callback(stop)
    if processes.count() > 1:
        processes.share_weights(model)
        if shares_out(recipe):
            trainer.share_out(resolve_precision(recipe.train.precision))
        torch.manual_seed(recipe.train.seed + processes.rank())  # each process drops out other numbers
    began, first_step = time.monotonic(), step_of(checkpoint) if checkpoint else 0
    with closed(trainer, stop, folder):
        trainer.go_on(checkpoint)
        seconds = time.monotonic() - began
        steps = trainer.state.global_step
        interrupted = processes.anyone(stop.asked)
        if trainer.shards is not None:
            trainer.shards.end()
        # Accelerate's autocast stays around a trained model's forward pass; a saved and reopened one has none.
        trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        if start is not None and not interrupted:
            draw_back(trainer, model, start, recipe.train.interpolate)
        if not interrupted:
            _fit_heads(recipe, model, data)
        if processes.is_first():
            finish_folder(folder, None if interrupted else model)
    processes.barrier()  # where this returns, the model is there
    best = trainer.state.best_model_checkpoint
    tally = backup.finish(Path(best) if best else None, model=not interrupted) if backup else None
    return RunResult(
        folder=folder,
        model=model,
        steps=steps,
        first_step=first_step,
        seconds=seconds,
        pairs_per_second=(steps - first_step) * recipe.train.batch * recipe.train.accumulation / max(seconds, 1e-9),
        best=best_of(trainer),
        start=at_start(trainer),
        ended=reason_of(trainer, interrupted),
        interrupted=interrupted,
        backup=tally,
    )


def _fit_heads(recipe: Recipe, model: SpectraSentenceTransformer, data: TrainingData) -> None:
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.training.init.fit_heads import fit_heads_to_rows

    wanted = {"bridge": recipe.model.bridge, "anchors": recipe.model.anchor}
    if not any(wanted.values()) or not recipe.train.fit_codes:
        return
    if processes.is_first():
        texts, precision = recipe.train.fit_codes, resolve_precision(recipe.train.precision)
        fit_heads_to_rows(model, data.train, texts, **wanted, seed=recipe.train.seed, precision=precision)
    processes.share_weights(model.spectra.bridge)
    processes.share_weights(model.spectra.anchors)


def best_of(trainer: RunTrainer) -> dict[str, float]:
    if trainer.state.best_metric is None or trainer.args.metric_for_best_model is None:
        return {}
    return {trainer.args.metric_for_best_model.removeprefix("eval_"): float(trainer.state.best_metric)}


def at_start(trainer: RunTrainer) -> dict[str, float]:
    name = trainer.args.metric_for_best_model
    measured = [row[name] for row in trainer.state.log_history if name in row and row["step"] == 0]
    return {name.removeprefix("eval_"): float(measured[0])} if measured and name is not None else {}
