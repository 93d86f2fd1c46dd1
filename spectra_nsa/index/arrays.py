"""Arrays on disk as `.npy` files: written whole or in pieces, opened by memory map."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spectra_nsa.core.errors import SpectraError


def damaged(path: Path, reason: str) -> SpectraError:
    """Returns the error for a file of an index that does not hold what it should."""
    return SpectraError(f"{path} is damaged: {reason}. Build the index again, or restore a copy.")


def map_array(path: Path, dtype: DTypeLike, length: int | None = None, *, ndim: int = 1) -> NDArray[Any]:
    """Opens an array by memory map, read-only, after checking its type and shape.

    Args:
        path: an `.npy` file.
        dtype: the type of its numbers.
        length: its number of rows; ``None`` for any.
        ndim: its number of dimensions.

    Raises:
        SpectraError: it is missing, or it is not such an array.
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise damaged(path, "it is missing") from None
    except (
        OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError,
        tokenize.TokenError,
    ) as error:  # fmt: skip
        raise damaged(path, f"it is not an array ({(str(error).splitlines() or [''])[0][:100]})") from error
    if not isinstance(mapped, np.ndarray) or mapped.dtype != np.dtype(dtype) or mapped.ndim != ndim:
        raise damaged(path, f"it is not an array of {np.dtype(dtype)} with {ndim} dimensions")
    if (length is not None and len(mapped) != length) or not mapped.flags.c_contiguous:
        raise damaged(path, f"it has {len(mapped):,} rows instead of {length or 0:,}")
    plain = mapped.view(np.ndarray)
    plain.flags.writeable = False  # an empty array is not mapped
    return plain


def new_array(path: Path, dtype: DTypeLike, shape: int | tuple[int, ...]) -> NDArray[Any]:
    """Creates an array on disk that can be written to; close it by deleting the last reference."""
    shape = (shape,) if isinstance(shape, int) else shape
    if 0 in shape:
        np.save(path, np.empty(shape, dtype=dtype), allow_pickle=False)
        return np.empty(shape, dtype=dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)


def check_starts(path: Path, starts: NDArray[np.int64], end: int) -> None:
    """Checks that an array of starts rises from 0 to the number of entries.

    Raises:
        SpectraError: it does not.
    """
    if not len(starts) or starts[0] != 0 or starts[-1] != end or (np.diff(starts) < 0).any():
        raise damaged(path, "its numbers do not rise from 0 to the number of entries")
