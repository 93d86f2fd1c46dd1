"""How a run ends: the outcome in a word or two, the last line of its log, and its report."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.report.run_log import FINAL

if TYPE_CHECKING:
    from torch import nn

    from spectra_nsa.training.loop.interrupt import StopOnInterrupt
    from spectra_nsa.training.loop.trainer import RunTrainer


@contextlib.contextmanager
def closing(trainer: RunTrainer, interrupt: StopOnInterrupt, folder: Path) -> Iterator[None]:
    """Closes a run however the block ends: releases Ctrl-C and the screen, logs the outcome and writes the report."""
    outcome, kept = "failed", None
    try:
        yield
        outcome = outcome_of(trainer, interrupt.requested)
        kept = None if outcome == "interrupted" else kept_step(trainer)
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        interrupt.release()
        observers = trainer.plan.observers
        observers.progress.stop()
        observers.watch.write_end(trainer.state.global_step, outcome, kept)
        if processes.is_first():
            _write_report(folder)


def outcome_of(trainer: RunTrainer, interrupted: bool) -> str:
    """Returns how a run that did not fail ended: interrupted, stopped early, out of time or finished."""
    if interrupted:
        return "interrupted"
    early_stopping = trainer.plan.observers.early_stopping
    if early_stopping is not None and early_stopping.has_stopped:
        return "stopped early"
    out_of_time = trainer.plan.deadline is not None and trainer.state.global_step < trainer.state.max_steps
    return "out of time" if out_of_time else "finished"


def kept_step(trainer: RunTrainer) -> int:
    """Returns the step whose weights are the model: that of the best checkpoint, else the last."""
    best = trainer.state.best_global_step if trainer.state.best_metric is not None else None
    return best or trainer.state.global_step


def measure_again(trainer: RunTrainer, model: nn.Module, *, dev: bool) -> None:
    """Measures a finished model whose weights are not those that were measured last, and logs the figures.

    They count as those of the step that the model is from, and the dev metric becomes the run's best.

    Args:
        trainer: of the run.
        model: the finished model.
        dev: whether to measure the dev metric too, beside the health.
    """
    plan, state, step = trainer.plan, trainer.state, kept_step(trainer)
    figures: dict[str, float] = {}
    if dev and plan.evaluator is not None:
        model.eval()
        ((name, value),) = plan.evaluator(model).items()
        figures[f"eval_{name}"] = value
        state.best_metric, state.best_global_step = value, step
    if not processes.is_first():
        return
    observers = plan.observers
    health = observers.measure() if observers.measure is not None else {}
    for values in (figures, health):
        if values:
            observers.log.write(step, {**values, FINAL: True})


def _write_report(folder: Path) -> None:
    """Writes `report.html`; a run does not fail for want of one."""
    from spectra_nsa.report.run_log import read_run
    from spectra_nsa.report.run_page import run_page

    try:
        run_page(read_run(folder, empty=True)).write(folder / "report.html")
    except (SpectraError, OSError) as error:
        print(f"spectra: no report.html: {error}", file=sys.stderr)
