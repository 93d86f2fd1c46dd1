"""The checkpoints of a run: which there are, which can be trusted, how they come and go."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from spectra_nsa.core.checksums import damage, sync_folder
from spectra_nsa.core.errors import SpectraError

_STEP = re.compile(r"^step-(\d+)$")
_LEAVING = ".leaving-"  # a folder that is being deleted: it is no checkpoint any more


@dataclass(frozen=True)
class Found:
    """Where a run goes on.

    Attributes:
        folder: the run's.
        checkpoint: where from; ``None`` from the beginning, as the run was stopped before its first.
    """

    folder: Path
    checkpoint: Path | None


def step_of(checkpoint: Path) -> int:
    """N of `step-N`."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in (folder / "checkpoints").glob("*") if path.is_dir() and _STEP.match(path.name)]
    return sorted(found, key=step_of)


def run_of(run_or_checkpoint: str | Path) -> Path:
    """The run's folder, by its own name or by a checkpoint's.

    Raises:
        SpectraError: it is neither.
    """
    path = Path(run_or_checkpoint)
    if _STEP.match(path.name) and path.is_dir():
        path = path.resolve().parent.parent
    if not (path / "recipe.yaml").is_file():
        raise SpectraError(
            f"{run_or_checkpoint} is neither a run (a folder with recipe.yaml) nor a checkpoint (checkpoints/step-N)."
        )
    return path.resolve()


def find_checkpoint(run_or_checkpoint: str | Path) -> Found:
    """Where to go on: the given checkpoint, or the latest one of the run that is whole by its manifest.

    A damaged checkpoint of a run is reported on standard error and passed over.

    Raises:
        SpectraError: there is no such run; the given checkpoint is damaged, or all are.
    """
    path, folder = Path(run_or_checkpoint), run_of(run_or_checkpoint)
    if _STEP.match(path.name):
        if problem := damage(path):
            raise SpectraError(
                f"{path} is damaged: {problem}. Go on from the run's latest whole checkpoint: --resume {folder}"
            )
        return Found(folder, path.resolve())
    every = checkpoints_of(folder)
    for checkpoint in reversed(every):
        problem = damage(checkpoint)
        if problem is None:
            return Found(folder, checkpoint)
        print(f"spectra: {checkpoint} is damaged: {problem}; passing it over", file=sys.stderr, flush=True)
    if every:
        raise SpectraError(f"no checkpoint of {folder} is whole. Restore a backup, or start again under another name.")
    return Found(folder, None)


def first_step(resume: str | Path | None) -> int | None:
    """The step that a run goes on from, 0 where it was stopped before its first checkpoint; ``None`` for a new run.

    Raises:
        SpectraError: what `find_checkpoint` refuses.
    """
    if resume is None:
        return None
    checkpoint = find_checkpoint(resume).checkpoint
    return step_of(checkpoint) if checkpoint is not None else 0


def publish(written: Path, final: Path) -> None:
    """Gives a complete checkpoint its name; no other folder, or half of one, ever stands under it."""
    sync_folder(written)
    if final.exists():
        _drop(final)
    written.rename(final)
    sync_folder(final.parent)


def rotate(folder: Path, *, keep: int, protected: Collection[Path]) -> None:
    """Deletes the oldest checkpoints until `keep` stand; the latest and the `protected` always stay."""
    every = checkpoints_of(folder)
    held = {path.resolve() for path in protected} | {path.resolve() for path in every[-1:]}
    excess = len(every) - keep
    for checkpoint in every:
        if excess <= 0:
            break
        if checkpoint.resolve() not in held:
            _drop(checkpoint)
            excess -= 1


def clear(folder: Path, checkpoint: Path | None) -> None:
    """Makes a run ready to go on from `checkpoint`: what came later, or was never finished, is out of the way.

    Later checkpoints are of steps that run again, or damaged. They are renamed, not deleted, and a line says so.
    """
    for later in checkpoints_of(folder):
        if checkpoint is None or step_of(later) > step_of(checkpoint):
            aside = later.with_name(f"aside-{later.name}")
            shutil.rmtree(aside, ignore_errors=True)
            later.rename(aside)
            print(f"spectra: {later.name} is now {aside}; delete it when you like", file=sys.stderr, flush=True)
    leftovers = [*folder.glob(".*.tmp"), *(folder / "checkpoints").glob(f"{_LEAVING}*")]
    for path in leftovers:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _drop(checkpoint: Path) -> None:
    leaving = checkpoint.with_name(f"{_LEAVING}{checkpoint.name}")
    shutil.rmtree(leaving, ignore_errors=True)
    checkpoint.rename(leaving)
    shutil.rmtree(leaving, ignore_errors=True)
