"""A learning-rate schedule that ends when the time does."""

from __future__ import annotations

import time

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spectra_nsa.core import processes


def budgeted_schedule(optimizer: Optimizer, steps: int, warmup: int, deadline: float) -> LambdaLR:
    """Linear warm-up and linear decay over steps or time, whichever runs out first (Li et al. 2020, Budgeted Training).

    The speed of the machine need not be known beforehand, and a machine that slows down half-way still ends at a
    learning rate near 0. The schedule is not reproducible step by step, and not resumable.

    Args:
        optimizer: its learning rates are scaled.
        steps: the most steps of the run.
        warmup: the steps over which the learning rate rises, if all `steps` were taken.
        deadline: a `time.monotonic()`; the clock starts now.
    """
    start = time.monotonic()
    rising = warmup / steps

    def factor(step: int) -> float:
        spent = (time.monotonic() - start) / max(deadline - start, 1e-9)
        done = min(
            1.0, max(step / steps, processes.max_over_processes(spent))
        )  # the same learning rate in every process
        return done / rising if done < rising else (1 - done) / (1 - rising)

    return LambdaLR(optimizer, factor)
