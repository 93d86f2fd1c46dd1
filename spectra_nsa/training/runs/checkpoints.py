"""The checkpoints of a run: listing them, finding one to resume from, writing and deleting them."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from spectra_nsa.core.checksums import damage, sync_folder
from spectra_nsa.core.errors import SpectraError

_STEP = re.compile(r"^step-(\d+)$")
_LEAVING = ".leaving-"  # prefix of a folder that is being deleted, and no longer a checkpoint


@dataclass(frozen=True)
class ResumePoint:
    """Where a run resumes.

    Attributes:
        folder: the run's folder.
        checkpoint: the checkpoint; ``None`` starts over, as the run was stopped before its first one.
    """

    folder: Path
    checkpoint: Path | None

    @property
    def step(self) -> int:
        """The step of the checkpoint; 0 without one."""
        return step_of(self.checkpoint) if self.checkpoint is not None else 0


def step_of(checkpoint: Path) -> int:
    """Returns N of `step-N`."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints_of(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first."""
    paths = [path for path in (folder / "checkpoints").glob("*") if path.is_dir() and _STEP.match(path.name)]
    return sorted(paths, key=step_of)


def run_of(run_or_checkpoint: str | Path) -> Path:
    """Returns the folder of a run, given that folder or one of its checkpoints; relative if it is in this folder.

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
    return _relative(path)


def _relative(path: Path) -> Path:
    """Returns a path relative to the current folder if it is below that, else an absolute one."""
    path = path.resolve()
    with contextlib.suppress(ValueError):
        relative = path.relative_to(Path.cwd())
        return relative if relative.name else path
    return path


def find_resume_point(run_or_checkpoint: str | Path) -> ResumePoint:
    """Finds where to resume: at the given checkpoint, or at the run's latest one that matches its manifest.

    Damaged checkpoints of a run are skipped, and reported on standard error.

    Raises:
        SpectraError: there is no such run; the given checkpoint is damaged, or all are.
    """
    path, folder = Path(run_or_checkpoint), run_of(run_or_checkpoint)
    if _STEP.match(path.name):
        if problem := damage(path):
            raise SpectraError(
                f"{path} is damaged: {problem}. Resume from the run's latest intact checkpoint: --resume {folder}"
            )
        return ResumePoint(folder, _relative(path))
    checkpoints = checkpoints_of(folder)
    for checkpoint in reversed(checkpoints):
        problem = damage(checkpoint)
        if problem is None:
            return ResumePoint(folder, checkpoint)
        print(f"spectra: skipping {checkpoint}, which is damaged: {problem}", file=sys.stderr, flush=True)
    if checkpoints:
        raise SpectraError(
            f"every checkpoint of {folder} is damaged. Restore a backup, or start again under another name."
        )
    return ResumePoint(folder, None)


def finalize_checkpoint(written: Path, final: Path) -> None:
    """Gives a complete checkpoint its name; no partial or different folder ever has it."""
    sync_folder(written)
    if final.exists():
        _delete(final)
    written.rename(final)
    sync_folder(final.parent)


def delete_old_checkpoints(folder: Path, *, keep: int, protected: Collection[Path]) -> None:
    """Deletes the oldest checkpoints of a run until `keep` are left; the latest and the `protected` always stay."""
    checkpoints = checkpoints_of(folder)
    stay = {path.resolve() for path in protected} | {path.resolve() for path in checkpoints[-1:]}
    excess = len(checkpoints) - keep
    for checkpoint in checkpoints:
        if excess <= 0:
            break
        if checkpoint.resolve() not in stay:
            _delete(checkpoint)
            excess -= 1


def prepare_resume(point: ResumePoint) -> None:
    """Clears a run of what came after the checkpoint that it resumes from, and of unfinished files.

    Later checkpoints are damaged, or their steps run again. They are renamed, not deleted, and a line says so.
    """
    for later in checkpoints_of(point.folder):
        if step_of(later) > point.step:
            renamed = later.with_name(f"aside-{later.name}")
            shutil.rmtree(renamed, ignore_errors=True)
            later.rename(renamed)
            print(f"spectra: {later.name} is now {renamed}; you may delete it", file=sys.stderr, flush=True)
    leftovers = [*point.folder.glob(".*.tmp"), *(point.folder / "checkpoints").glob(f"{_LEAVING}*")]
    for path in leftovers:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _delete(checkpoint: Path) -> None:
    leaving = checkpoint.with_name(f"{_LEAVING}{checkpoint.name}")
    shutil.rmtree(leaving, ignore_errors=True)
    checkpoint.rename(leaving)
    shutil.rmtree(leaving, ignore_errors=True)
