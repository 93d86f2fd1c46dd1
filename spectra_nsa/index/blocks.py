"""Arrays in numbered files, each complete or absent, so that work done in blocks resumes after a kill."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.cache import Entry, cache_write


def read_arrays(path: Path) -> dict[str, Any] | None:
    """Returns the arrays of an `.npz` file; ``None`` if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, LookupError, EOFError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None


class Blocks:
    """A cache entry's folder with one file per block. The constructor writes no block.

    Args:
        entry: the cache entry; its key identifies the arrays.
    """

    def __init__(self, entry: Entry) -> None:
        self.folder = entry.folder
        entry.touch()
        entry.cache.prune()

    def get(self, number: int) -> dict[str, Any] | None:
        """Returns the arrays of a block; ``None`` if the block is missing or damaged."""
        return read_arrays(self._file(number))

    def require(self, number: int) -> dict[str, Any]:
        """Returns the arrays of a block that was written before."""
        arrays = self.get(number)
        assert arrays is not None, f"{self.folder} was deleted while it was in use"
        return arrays

    def put(self, number: int, **arrays: Any) -> None:
        """Writes the arrays of a block.

        Raises:
            SpectraError: the disk is full.
        """
        with cache_write(self._file(number)) as file:
            np.savez(file, **arrays)

    def missing(self, count: int) -> list[int]:
        """Returns which of the blocks 0 … count − 1 have yet to be computed.

        Reads each block once; a damaged one counts as missing.
        """
        return [number for number in range(count) if self.get(number) is None]

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06}.npz"
