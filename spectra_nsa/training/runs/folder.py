"""A run's folder: found or claimed, held by one run at a time, and finished."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core import processes
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import atomic_folder, atomic_write, held

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.runs.backup import Backup


def place(recipe: Recipe | None, resume: str | Path | None) -> tuple[Recipe, Path, Path | None]:
    """The recipe, the run's folder, and the checkpoint to go on from."""
    from spectra_nsa.training.checks import check_reporters
    from spectra_nsa.training.runs.checkpoints import find_checkpoint

    folder = checkpoint = None
    if resume is not None:
        found = find_checkpoint(resume)
        folder, checkpoint = found.folder, found.checkpoint
        before = load_recipe(folder / "recipe.yaml")
        recipe = recipe or before
        if recipe.name != before.name:
            raise UsageError(f"{folder} goes on under its own name: leave out name={recipe.name}.")
        if checkpoint is not None:
            print(f"going on from {checkpoint}", file=sys.stderr, flush=True)
    assert recipe is not None
    check_reporters(recipe)
    if folder is None:
        folder = claim_folder(Path(recipe.output) / (recipe.name or datetime.datetime.now().strftime("%Y%m%d-%H%M%S")))
    return recipe, folder, checkpoint


@contextlib.contextmanager
def held_by_first(folder: Path) -> Iterator[None]:
    """Holds the folder in the first process, for all of them; one that is empty in the end is taken away.

    Raises:
        UsageError: another run holds it.
    """
    try:
        with contextlib.ExitStack() as stack:
            processes.by_first(lambda: stack.enter_context(held(folder)))
            yield
    finally:
        if processes.is_first():
            with contextlib.suppress(OSError):  # a run stands in it
                folder.rmdir()


@contextlib.contextmanager
def taken_back(written: Path | None) -> Iterator[None]:
    """Deletes a folder that was just written where the block refuses the run; ``None`` for nothing to delete."""
    try:
        yield
    except SpectraError:
        if written is not None and processes.is_first():
            shutil.rmtree(written, ignore_errors=True)
        raise


def backup_of(recipe: Recipe, folder: Path, *, new: bool) -> Backup | None:
    """The first process's backup; the others have none, and fail where it does."""
    from spectra_nsa.training.runs.backup import open_backup

    opened: list[Backup | None] = []
    processes.by_first(lambda: opened.append(open_backup(recipe.backup, folder, new=new)))
    return opened[0] if opened else None


def check_rows(found: list[list[int]]) -> None:
    rows = sorted({rows for (rows,) in found})
    if len(rows) > 1:
        raise SpectraError(
            f"the processes read different data: {' and '.join(map(str, rows))} rows. Give all of them the same files."
        )


def check_free(folder: Path) -> None:
    """That no run stands in a folder, and no file in its place.

    Raises:
        SpectraError: one does.
    """
    if folder.exists() and not folder.is_dir():
        raise SpectraError(f"{folder} is a file: a run is a folder. Choose another name.")
    if (folder / "recipe.yaml").exists():
        raise SpectraError(
            f"{folder} holds a run already. Go on with it: {go_on(folder)}; or choose another name or folder."
        )
    if (folder / "checkpoints").exists() or (folder / "model").exists():
        raise SpectraError(f"{folder} holds a model or a run already: choose another name or folder.")


def go_on(folder: Path) -> str:
    """The command that goes on with the run of a folder."""
    return (
        f"spectra {'train' if load_recipe(folder / 'recipe.yaml').pretrain is None else 'pretrain'} --resume {folder}"
    )


def claim_folder(folder: Path) -> Path:
    """Makes sure that a new run can be written there, before any work is done.

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


def write_recipe(folder: Path, recipe: Recipe) -> None:
    with atomic_write(folder / "recipe.yaml") as file:
        file.write(recipe.to_yaml())


def finish_folder(folder: Path, model: SpectraSentenceTransformer | None) -> None:
    with contextlib.suppress(OSError):  # sentence-transformers makes it for reports that we do not write there
        (folder / "checkpoints" / "eval").rmdir()
    if model is not None:
        with atomic_folder(folder / "model") as temporary:
            model.save_pretrained(str(temporary))
