"""The line that a run begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def opening(folder: Path, steps: int, counted: Sequence[str], quarantined: int) -> str:
    """How many steps a run takes and on what, and how to look on.

    Args:
        folder: `runs/NAME`.
        steps: of the whole run.
        counted: what was read, and what became of it, such as "96 rows".
        quarantined: broken rows, which are in the folder's `quarantine/`.
    """
    aside = [f"{quarantined:,} broken rows set aside in {folder / 'quarantine'}"] if quarantined else []
    return f"{folder}: {steps:,} steps on {', '.join([*counted, *aside])}. To look on: spectra monitor {folder}"
