"""Arrays in numbered files, each complete or absent: work that is done in pieces resumes where it was killed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.cache import Entry, cannot_keep
from spectra_nsa.core.files import atomic_write


class Blocks:
    """The folder of a cache entry with one file for each block.

    Args:
        entry: whose key decides the arrays; nothing is written yet.
    """

    def __init__(self, entry: Entry) -> None:
        self.folder = entry.folder
        entry.touch()
        entry.cache.prune()

    def get(self, number: int) -> dict[str, Any] | None:
        """Returns the arrays of a block; ``None`` if there are none or they are damaged."""
        try:
            with np.load(self._file(number), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, number: int, **arrays: Any) -> None:
        """Writes the arrays of a block.

        Raises:
            SpectraError: the disk is full.
        """
        try:
            with atomic_write(self._file(number), "wb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise cannot_keep(self.folder, error) from error

    def missing(self, count: int) -> list[int]:
        """Returns which of the blocks 0 … count − 1 are still to be computed.

        Each block is read once: a damaged one counts as missing.
        """
        return [number for number in range(count) if self.get(number) is None]

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06}.npz"
