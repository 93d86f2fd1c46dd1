"""The line that a run prints as it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spectra_nsa.core.counts import counted


def start_line(folder: Path, steps: int, counts: Sequence[str], quarantined: int, first_step: int = 0) -> str:
    """Says how many steps a run takes, on what, and how to watch it; or that it takes none.

    Args:
        folder: `runs/NAME`.
        steps: of the whole run.
        counts: what was read and what became of it, such as "96 rows".
        quarantined: the number of quarantined rows, which are in the folder's `quarantine/`.
        first_step: the step that it resumes from; 0 for a new run.
    """
    if first_step >= steps:
        return f"{folder}: {resume_phrase(steps, first_step)}; model/ is written from its checkpoints"
    set_aside = [f"{counted(quarantined, 'row')} quarantined in {folder / 'quarantine'}"] if quarantined else []
    rows = ", ".join([*counts, *set_aside])
    if first_step:
        return f"{folder}: {resume_phrase(steps, first_step)}, on {rows}. To watch it: spectra monitor {folder}"
    return f"{folder}: {counted(steps, 'step')} on {rows}. To watch it: spectra monitor {folder}"


def resume_phrase(steps: int, first_step: int) -> str:
    """Says in a few words where a run of `steps` steps resumes that is at `first_step`."""
    if first_step == 0:
        return "starting over, as there is no checkpoint yet"
    if first_step < steps:
        return f"resuming from step {first_step:,} of {steps:,}"
    if first_step > steps:
        return f"already at step {first_step:,}, beyond {steps:,}: no step to take"
    return f"already at step {first_step:,} of {steps:,}: no step to take"
