"""The folder of a run: claimed for a new one, and locked by one process at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import locked_folder
from spectra_nsa.training.jobs import job_for


def resume_command(folder: Path) -> str:
    """Returns the command that resumes the run of a folder."""
    return f"spectra {job_for(load_recipe(folder / 'recipe.yaml')).command} --resume {folder}"


def check_free(folder: Path) -> None:
    """Checks that a folder holds no run.

    Raises:
        SpectraError: it holds a run or a model, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise SpectraError(f"{folder} is a file, and a run is a folder. Choose another name.")
    if (folder / "recipe.yaml").exists():
        raise SpectraError(
            f"{folder} already holds a run. Resume it: {resume_command(folder)}; or choose another name or folder."
        )
    if (folder / "checkpoints").exists() or (folder / "model").exists():
        raise SpectraError(f"{folder} already holds a model or a run. Choose another name or folder.")


def claim_folder(folder: Path) -> Path:
    """Makes sure that a new run can be written to a folder, before any work is done.

    Raises:
        SpectraError: it holds a run already, or cannot be written to.
    """
    check_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpectraError(f"cannot create {folder}: {error.strerror or error}.") from error
    if not os.access(folder, os.W_OK):
        raise SpectraError(f"cannot write to {folder}: no permission. Choose another output folder.")
    return folder


@contextlib.contextmanager
def locked_by_first(folder: Path) -> Iterator[None]:
    """Locks the folder in the first process, for all of them; deletes it if it is empty in the end.

    Raises:
        UsageError: another run has locked it.
    """
    try:
        with contextlib.ExitStack() as stack:
            processes.run_on_first(lambda: stack.enter_context(locked_folder(folder)))
            yield
    finally:
        if processes.is_first():
            with contextlib.suppress(OSError):  # it holds a run
                folder.rmdir()


@contextlib.contextmanager
def deleted_on_error(folder: Path | None) -> Iterator[None]:
    """Deletes a folder that was just written if the block raises a `SpectraError`; ``None`` for nothing to delete."""
    try:
        yield
    except SpectraError:
        if folder is not None and processes.is_first():
            shutil.rmtree(folder, ignore_errors=True)
        raise
