"""A learning-rate schedule that ends when the time does."""

from __future__ import annotations

import time

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spectra_nsa.core import processes


def budgeted_schedule(optimizer: Optimizer, steps: int, warmup: int, deadline: float) -> LambdaLR:
    """Linear warm-up and linear decay over steps or time, whichever runs out first (Li et al. 2020, Budgeted Training).

    How fast a machine is need not be known beforehand, and one that slows down half-way still ends on a learning rate
    of nearly 0. Not reproducible step by step, and not resumable.

    Args:
        optimizer: whose learning rates are scaled.
        steps: the most steps there will be.
        warmup: how many of them the learning rate rises in, were they all taken.
        deadline: a `time.monotonic()`; the clock starts now.
    """
    began = time.monotonic()
    rising = warmup / steps

    def factor(step: int) -> float:
        spent = (time.monotonic() - began) / max(deadline - began, 1e-9)
        done = min(1.0, max(step / steps, processes.largest(spent)))  # no two processes at another learning rate
        return done / rising if done < rising else (1 - done) / (1 - rising)

    return LambdaLR(optimizer, factor)
