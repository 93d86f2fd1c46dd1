"""The callbacks that watch a run, in the order in which they see its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core.results import environment
from spectra_nsa.report.run_log import MetricsTail
from spectra_nsa.training.monitor.early_stopping import EarlyStopping
from spectra_nsa.training.monitor.health import HealthProbe
from spectra_nsa.training.monitor.metrics_log import MetricsLog
from spectra_nsa.training.monitor.progress import Progress
from spectra_nsa.training.monitor.throughput import Throughput
from spectra_nsa.training.monitor.watch import Watch

if TYPE_CHECKING:
    from transformers import TrainerCallback


@dataclass(frozen=True, kw_only=True)
class Observers:
    """What watches a run; each observer sees what those before it put into the log.

    Attributes:
        throughput: logs speed and memory.
        log: writes `metrics.jsonl`.
        watch: warns, and writes the lines of the run's start and end.
        progress: shows where the run stands.
        every: steps between two health measurements.
        measure: returns the health figures; ``None`` for no measurements.
        early_stopping: ends the run by `train.patience`; ``None`` never does.
        folder: `runs/NAME`.
    """

    throughput: Throughput
    log: MetricsLog
    watch: Watch
    progress: Progress
    every: int
    measure: Callable[[], dict[str, float]] | None
    early_stopping: EarlyStopping | None
    folder: Path

    def callbacks(
        self, log: Callable[[dict[str, float]], None], gathered: Callable[[], AbstractContextManager[None]]
    ) -> list[TrainerCallback]:
        """Returns the callbacks of a trainer.

        Args:
            log: logs figures, as `Trainer.log` does.
            gathered: the context in which one process may use a sharded model without the others.
        """
        callbacks: list[TrainerCallback] = [self.throughput, self.log, self.watch]
        if self.measure is not None:
            callbacks.append(HealthProbe(self.measure, self.every, log, gathered))
        callbacks.append(self.progress)
        if self.early_stopping is not None:
            callbacks.append(self.early_stopping)
        return callbacks


def build_observers(
    recipe: Recipe,
    folder: Path,
    throughput: Throughput,
    *,
    terms: Sequence[str] = (),
    measure: Callable[[], dict[str, float]] | None = None,
    deadline: float | None = None,
) -> Observers:
    """Builds what watches a run.

    Args:
        recipe: the run.
        folder: `runs/NAME`.
        throughput: counts the work.
        terms: the loss terms that take part in training.
        measure: returns the health figures; ``None`` for no measurements.
        deadline: a `time.monotonic()` at which the run stops; ``None`` for none.
    """
    log = MetricsLog(folder / "metrics.jsonl")
    tail = MetricsTail(log.path)
    ends_at = time.time() + deadline - time.monotonic() if deadline is not None else None
    watch = Watch(
        warmup=recipe.monitor.warmup,
        terms=terms,
        write=log.write,
        earlier_rows=tail.read,
        facts={"precision": throughput.precision, "ends_at": ends_at, "environment": environment()},
    )
    return Observers(
        throughput=throughput,
        log=log,
        watch=watch,
        progress=Progress(folder.name, tail.read, deadline),
        every=recipe.monitor.every or recipe.train.evaluate_every,
        measure=measure,
        early_stopping=EarlyStopping(recipe.train.patience) if recipe.train.patience is not None else None,
        folder=folder,
    )
