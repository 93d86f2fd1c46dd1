"""Arrays in numbered files, each whole or absent: work that is done in pieces goes on where it was killed."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.cache import cache_folder, prune
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_write


class Blocks:
    """A folder of the cache with one file a block."""

    def __init__(self, kind: str, key: str, *, keep: int) -> None:
        """The folder of one key; nothing is written yet.

        Args:
            kind: the folder of the cache that it lies in.
            key: a name for what the arrays depend on; another key is another folder.
            keep: how many keys of this kind stay on disk.
        """
        self.place = cache_folder(kind) / key
        with contextlib.suppress(OSError):
            os.utime(self.place)  # those used last are kept
        prune(self.place.parent, keep)

    def get(self, number: int) -> dict[str, Any] | None:
        """The arrays of a block; ``None`` where there are none or they are damaged."""
        try:
            with np.load(self._file(number), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, number: int, **arrays: Any) -> None:
        """Keeps the arrays of a block.

        Raises:
            SpectraError: there is no room, or no permission.
        """
        try:
            with atomic_write(self._file(number), "wb") as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise SpectraError(
                f"cannot keep files in {self.place}: {error.strerror or error}. "
                "Make room there, or set XDG_CACHE_HOME to a folder with more."
            ) from error

    def missing(self, count: int) -> list[int]:
        """Which of the blocks 0 … count − 1 are to be made. Each is read once: a damaged one counts as missing."""
        return [number for number in range(count) if self.get(number) is None]

    def _file(self, number: int) -> Path:
        return self.place / f"{number:06}.npz"
