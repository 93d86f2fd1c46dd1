"""The line that a run begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def opening(folder: Path, steps: int, counted: Sequence[str], quarantined: int, first_step: int = 0) -> str:
    """How many steps a run takes and on what, and how to look on; or that it takes none.

    Args:
        folder: `runs/NAME`.
        steps: of the whole run.
        counted: what was read, and what became of it, such as "96 rows".
        quarantined: broken rows, which are in the folder's `quarantine/`.
        first_step: where it goes on from; 0 for a new one.
    """
    if first_step >= steps:
        return f"{folder}: {going_on(steps, first_step)}; model/ is written from its checkpoints"
    aside = [f"{quarantined:,} broken rows set aside in {folder / 'quarantine'}"] if quarantined else []
    return f"{folder}: {steps:,} steps on {', '.join([*counted, *aside])}. To look on: spectra monitor {folder}"


def going_on(steps: int, first_step: int) -> str:
    """Where a run of so many steps goes on that is at `first_step`, in words."""
    if first_step == 0:
        return "beginning anew, as there is no checkpoint yet"
    if first_step < steps:
        return f"going on from step {first_step:,} of {steps:,}"
    if first_step > steps:
        return f"already at step {first_step:,}, beyond {steps:,}: no step to take"
    return f"already at step {first_step:,} of {steps:,}: no step to take"
