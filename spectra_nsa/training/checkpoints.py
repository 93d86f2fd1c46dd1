"""Where the checkpoints of a run are."""

from __future__ import annotations

import re
from pathlib import Path

from spectra_nsa.core.errors import SpectraError

_STEP = re.compile(r"^step-(\d+)$")


def find_checkpoint(run_or_checkpoint: str | Path) -> tuple[Path, Path]:
    """The run's folder and the checkpoint to resume from: the given one, or the run's latest.

    Raises:
        SpectraError: there is no such run or checkpoint.
    """
    path = Path(run_or_checkpoint)
    if _STEP.match(path.name) and (path / "trainer_state.json").is_file():
        return path.resolve().parent.parent, path.resolve()
    if not (path / "recipe.yaml").is_file():
        raise SpectraError(
            f"{path} is neither a run (a folder with recipe.yaml) nor a checkpoint (checkpoints/step-N)."
        )
    found = [(int(match[1]), child) for child in path.glob("checkpoints/*") if (match := _STEP.match(child.name))]
    if not found:
        raise SpectraError(f"{path} has no checkpoint yet; start it again without --resume.")
    return path.resolve(), max(found)[1].resolve()
