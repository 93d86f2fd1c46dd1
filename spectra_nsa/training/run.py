"""A training run: recipe in, `runs/NAME/` out."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_folder, atomic_write
from spectra_nsa.core.seeds import set_seed

if TYPE_CHECKING:
    from spectra_nsa.models.config import SpectraConfig
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.backup import Backup, Tally
    from spectra_nsa.training.data import TrainingData
    from spectra_nsa.training.trainer import SpectraTrainer


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves.

    Attributes:
        folder: `runs/NAME`.
        model: the best model, in memory.
        steps: steps trained, of this run and of the one it went on from.
        first_step: where this run went on from; 0 for a new one.
        seconds: wall time of the training itself.
        pairs_per_second: throughput of this process.
        best: the best dev metric by name; empty without a dev set.
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
    interrupted: bool
    backup: Tally | None = None


def train(
    recipe: Recipe | None = None,
    *,
    resume: str | Path | None = None,
    data: TrainingData | None = None,
    deadline: float | None = None,
) -> RunResult:
    """Trains a model by a recipe and writes `runs/NAME/` (docs/training.md).

    Args:
        recipe: what to do; ``None`` only with `resume`.
        resume: a run's folder, or one of its checkpoints: goes on from there, with the run's own recipe unless one
            is given. A run that was stopped before its first checkpoint begins anew.
        data: rows already loaded; ``None`` loads the recipe's.
        deadline: a `time.monotonic()` at which training ends, its schedule fitted to the time; ``None`` for none.

    Raises:
        SpectraError: unusable data, model, folder or checkpoint, or a checkpoint of another model or other data.
    """
    from spectra_nsa.training.checkpoints import clear
    from spectra_nsa.training.continuity import check_same
    from spectra_nsa.training.data import load_training_data
    from spectra_nsa.training.rarity import fit_rarity

    recipe, folder, checkpoint = _place(recipe, resume)
    backup = open_backup(recipe, folder, new=checkpoint is None)
    set_seed(recipe.train.seed)
    if data is None:
        data = load_training_data(recipe.data, seed=recipe.train.seed, quarantine=folder / "quarantine")
    model = open_start(recipe)
    if checkpoint is not None:
        check_same(checkpoint, recipe, model, data)
    elif recipe.model.entity is not False:
        fit_rarity(model, data.train)
    if resume is not None:
        clear(folder, checkpoint)
    _write_recipe(folder, recipe)
    return _fit(recipe, folder, model, data, checkpoint, deadline, backup)


def _place(recipe: Recipe | None, resume: str | Path | None) -> tuple[Recipe, Path, Path | None]:
    """The recipe, the run's folder, and the checkpoint to go on from."""
    from spectra_nsa.training.checkpoints import find_checkpoint

    if resume is not None:
        found = find_checkpoint(resume)
        return recipe or load_recipe(found.folder / "recipe.yaml"), found.folder, found.checkpoint
    assert recipe is not None
    name = recipe.name or datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return recipe, claim_folder(Path(recipe.output) / name), None


def open_start(recipe: Recipe) -> SpectraSentenceTransformer:
    """The model that a recipe starts from: a warm-started checkpoint, a saved model, or a fresh one of a size."""
    from spectra_nsa.models.checks import check_folder, resolve_folder
    from spectra_nsa.models.config import check_length
    from spectra_nsa.models.fresh import fresh_model
    from spectra_nsa.models.sentence import load
    from spectra_nsa.models.warm_start import warm_start

    section = recipe.model
    if section.start is None:
        return fresh_model(
            section.size or "M456",
            tokenizer=section.tokenizer,
            max_length=section.max_length,
            dropout=section.dropout,
            **_parts(recipe, fresh=True),
        )
    folder = resolve_folder(section.start)
    if check_folder(folder) == "bert":
        options = _parts(recipe) | {
            "hidden_dropout_prob": section.dropout,
            "attention_probs_dropout_prob": section.dropout,
            "max_seq_length": section.max_length,
        }
        return warm_start(folder, **{name: value for name, value in options.items() if value is not None})
    model = load(folder)
    for name, value in _parts(recipe, fresh=True).items():
        if getattr(model.spectra.config, name) != value:
            raise SpectraError(f"model.{name} is part of a saved model and cannot be changed to {value}.")
    if section.max_length is not None:
        check_length(section.max_length, model.spectra.config)
        model.max_seq_length = section.max_length
    if section.dropout is not None:
        model.spectra.set_dropout(section.dropout)
    return model


_PARTS = ("spectral", "mixer", "spectral_dim", "entropy_every", "depth_mix", "entity", "pooling", "semantic_dims")


def _parts(recipe: Recipe, *, fresh: bool = False) -> dict[str, Any]:
    """The model's parts that a recipe names, as options of `warm_start`, or as fields of a fresh model's config."""
    found = {name: value for name in _PARTS if (value := getattr(recipe.model, name)) is not None}
    if fresh and "spectral" in found:
        found["attention"] = "spectral" if found.pop("spectral") else "plain"
    return found


def planned_config(recipe: Recipe) -> tuple[SpectraConfig, int]:
    """The config of the model that a recipe starts from, and its longest text in tokens.

    A warm start is really opened, so that what it would refuse is refused now; a fresh model is not built.
    """
    from spectra_nsa.models.fresh import fresh_config

    section = recipe.model
    if section.start is not None:
        model = open_start(recipe)
        config = model.spectra.config
        return config, model.max_seq_length or config.max_position_embeddings
    config, _ = fresh_config(
        section.size or "M456",
        tokenizer=section.tokenizer,
        max_length=section.max_length,
        **_parts(recipe, fresh=True),
    )
    return config, config.max_length or config.max_position_embeddings


def claim_folder(folder: Path) -> Path:
    """Makes sure that a new run can be written there, before any work is done.

    Raises:
        SpectraError: it holds a run already, or cannot be written to.
    """
    if (folder / "checkpoints").exists() or (folder / "model").exists():
        raise SpectraError(
            f"{folder} holds a run already. Go on with it: --resume {folder}; or choose another name or folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpectraError(f"cannot create {folder}: {error.strerror or error}.") from error
    if not os.access(folder, os.W_OK):
        raise SpectraError(f"cannot write to {folder}: no permission. Choose another output folder.")
    return folder


def open_backup(recipe: Recipe, folder: Path, *, new: bool) -> Backup | None:
    """What copies a run's checkpoints; ``None`` where the recipe names no place for them.

    Args:
        recipe: the run.
        folder: its folder.
        new: whether it begins; then the place may not hold another run of its name.

    Raises:
        SpectraError: it does, or the address cannot be understood. A place that cannot be reached is only warned of.
    """
    from spectra_nsa.training.backup import Backup
    from spectra_nsa.training.backup_store import Store

    section = recipe.backup
    if section.to is None:
        return None
    store = Store(section.to, folder.name)
    try:
        taken = new and bool(store.units())
    except Exception as error:  # each backend has its own; the network may be back before the first copy
        print(f"spectra: backup: {store.address} cannot be reached yet: {error}", file=sys.stderr, flush=True)
        taken = False
    if taken:
        raise SpectraError(
            f"{store.address} holds backups of a run of this name. Go on with it: spectra backup restore "
            f"{store.address}, then spectra train --resume; or choose another name."
        )
    return Backup(store, folder, every=section.every, keep=section.keep, wait=section.wait)


def _write_recipe(folder: Path, recipe: Recipe) -> None:
    with atomic_write(folder / "recipe.yaml") as file:
        file.write(recipe.to_yaml())


def _fit(
    recipe: Recipe,
    folder: Path,
    model: SpectraSentenceTransformer,
    data: TrainingData,
    checkpoint: Path | None,
    deadline: float | None,
    backup: Backup | None,
) -> RunResult:
    from spectra_nsa.training.build import build_trainer
    from spectra_nsa.training.callbacks import StopOnInterrupt
    from spectra_nsa.training.checkpoints import step_of

    model._model_card_text = None  # a saved model's card tells of its own training, not of this one
    trainer = build_trainer(recipe, folder, model, data, deadline, backup)
    stop = StopOnInterrupt()
    trainer.add_callback(stop)
    began, first_step = time.monotonic(), step_of(checkpoint) if checkpoint else 0
    trainer.go_on(checkpoint)
    seconds = time.monotonic() - began
    steps = trainer.state.global_step
    with contextlib.suppress(OSError):  # sentence-transformers makes it for reports that we do not write there
        (folder / "checkpoints" / "eval").rmdir()
    if not stop.asked:
        with atomic_folder(folder / "model") as temporary:
            model.save_pretrained(str(temporary))
    best = trainer.state.best_model_checkpoint
    tally = backup.finish(Path(best) if best else None, model=not stop.asked) if backup else None
    return RunResult(
        folder=folder,
        model=model,
        steps=steps,
        first_step=first_step,
        seconds=seconds,
        pairs_per_second=(steps - first_step) * recipe.train.batch * recipe.train.accumulation / max(seconds, 1e-9),
        best=_best(trainer),
        interrupted=stop.asked,
        backup=tally,
    )


def _best(trainer: SpectraTrainer) -> dict[str, float]:
    if trainer.state.best_metric is None or trainer.args.metric_for_best_model is None:
        return {}
    return {trainer.args.metric_for_best_model.removeprefix("eval_"): float(trainer.state.best_metric)}
