"""The callbacks that look on while a run trains, in the order in which they see its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core.precision import resolve_precision
from spectra_nsa.core.results import environment
from spectra_nsa.models.size import flops_per_token
from spectra_nsa.report.runlog import MetricsTail
from spectra_nsa.training.loop.callbacks import MetricsLog, Patience
from spectra_nsa.training.monitor.health import HealthSample
from spectra_nsa.training.monitor.progress import Progress
from spectra_nsa.training.monitor.throughput import Throughput
from spectra_nsa.training.monitor.watch import Watch

if TYPE_CHECKING:
    from spectra_nsa.losses.stack import LossStack
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.data.rows import TrainingData
    from spectra_nsa.training.loop.trainer import RunTrainer, SpectraTrainer


def add_watchers(
    trainer: SpectraTrainer,
    model: SpectraSentenceTransformer,
    stack: LossStack,
    *,
    recipe: Recipe,
    folder: Path,
    data: TrainingData,
    terms: Sequence[str],
    deadline: float | None,
) -> None:
    """Adds what looks on: each later one sees what the earlier ones put into the log.

    Args:
        trainer: changed in place.
        model: what is trained.
        stack: its losses, whose work is counted.
        recipe: the run.
        folder: `runs/NAME`.
        data: what the health sample is drawn from.
        terms: the loss terms that take part.
        deadline: see `train`.
    """
    precision = resolve_precision(recipe.train.precision)
    sample = HealthSample(data, recipe.watch.rows, seed=recipe.train.seed, precision=precision)
    look_on(
        trainer,
        Throughput(stack.work, len(data.columns), partial(flops_per_token, model.spectra.config), precision),
        recipe=recipe,
        folder=folder,
        terms=terms,
        deadline=deadline,
        measure=partial(sample.measure, model) if recipe.watch.rows else None,
        gathered=trainer.gathered,
    )


def look_on(
    trainer: RunTrainer,
    speed: Throughput,
    *,
    recipe: Recipe,
    folder: Path,
    terms: Sequence[str] = (),
    deadline: float | None = None,
    measure: Callable[[], dict[str, float]] | None = None,
    gathered: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """As `add_watchers`, whatever is trained.

    Args:
        trainer: changed in place.
        speed: counts the work.
        recipe: the run.
        folder: `runs/NAME`.
        terms: the loss terms that take part.
        deadline: see `train`.
        measure: gives the health figures; ``None`` for none.
        gathered: what they are measured in, where processes share the model out.
    """
    log = MetricsLog(folder / "metrics.jsonl")
    tail = MetricsTail(log.path)
    ends_at = time.time() + deadline - time.monotonic() if deadline is not None else None
    trainer.watch = Watch(
        every=recipe.watch.every or recipe.train.evaluate_every,
        warmup=recipe.watch.warmup,
        terms=terms,
        log=trainer.log,
        write=log.write,
        before=tail.read,
        facts={"precision": speed.precision, "ends_at": ends_at, "environment": environment()},
        measure=measure,
        gathered=gathered,
    )
    trainer.progress = Progress(folder.name, tail.read, deadline)
    for callback in (speed, log, trainer.watch, trainer.progress):
        trainer.add_callback(callback)
    if recipe.train.patience is not None:
        trainer.patience = Patience(recipe.train.patience)
        trainer.add_callback(trainer.patience)
    for kind in get_reporting_integration_callbacks(recipe.train.report_to):
        reporter: Any = trainer.pop_callback(kind)
        if getattr(reporter, "logging_dir", "") is None:  # TensorBoard's, which would be among the checkpoints
            reporter.logging_dir = str(folder / "tensorboard")
        trainer.add_callback(reporter)
