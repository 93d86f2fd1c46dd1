"""How a run ends, whatever ends it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    from spectra_nsa.training.loop.callbacks import StopOnInterrupt
    from spectra_nsa.training.loop.trainer import RunTrainer


@contextlib.contextmanager
def closed(trainer: RunTrainer, stop: StopOnInterrupt, folder: Path) -> Iterator[None]:
    """Whatever comes: Ctrl-C and the screen are given back, the log says how the run ended, and its page is written."""
    reason, kept = "failed", None
    try:
        yield
        reason = reason_of(trainer, stop.asked)
        kept = None if reason == "interrupted" else _kept(trainer)
    except KeyboardInterrupt:
        reason = "interrupted"
        raise
    finally:
        stop.release()
        trainer.progress.stop()
        trainer.watch.ended(trainer.state.global_step, reason, kept)
        if processes.is_first():
            _leave_report(folder)


def reason_of(trainer: RunTrainer, interrupted: bool) -> str:
    """How a run that did not fail came to its end, in a word or two."""
    if interrupted:
        return "interrupted"
    if trainer.patience is not None and trainer.patience.lost:
        return "stopped early"
    return "out of time" if trainer.state.global_step < trainer.state.max_steps else "finished"


def _kept(trainer: RunTrainer) -> int:
    """The step whose weights are the model: the best one of those with a checkpoint, else the last."""
    best = trainer.state.best_global_step if trainer.state.best_metric is not None else None
    return best or trainer.state.global_step


def _leave_report(folder: Path) -> None:
    """Writes `report.html`; a run is not lost for want of one."""
    from spectra_nsa.report.run_page import run_page
    from spectra_nsa.report.runlog import read_run

    try:
        run_page(read_run(folder, empty=True)).write(folder / "report.html")
    except SpectraError as error:
        print(f"spectra: no report.html: {error}", file=sys.stderr)
