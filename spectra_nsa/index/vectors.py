"""The vectors that exact search reads in blocks: dense or sparse, on disk or in memory.

Dense vectors are (n, D) float32 arrays, sparse ones the rows of a scipy CSR matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from spectra_nsa.index.blocks import Blocks

ROWS = 2_048  # rows per block
GROUP = 8  # blocks of documents scored together: 2,048 × 16,384 scores take 134 MB


class DiskVectors:
    """Vectors on disk, `ROWS` per block.

    Args:
        blocks: the files: each holds the array `vectors`, or the arrays of `csr_arrays`.
        rows: the number of vectors.
    """

    def __init__(self, blocks: Blocks, rows: int) -> None:
        self.blocks = blocks
        self.rows = rows

    def block(self, number: int) -> Any:
        """Returns the rows of one block, dense or sparse."""
        arrays = self.blocks.require(number)
        return arrays["vectors"] if "vectors" in arrays else csr_from_arrays(arrays)

    def groups(self) -> Iterator[tuple[int, Any]]:
        """Yields the index of the first row and the rows of each group of blocks."""
        count = block_count(self.rows)
        for first in range(0, count, GROUP):
            parts = [self.block(number) for number in range(first, min(first + GROUP, count))]
            yield first * ROWS, _stack_rows(parts)


class SparseVectors:
    """Sparse vectors in memory, with the methods of `DiskVectors`."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.rows = matrix.shape[0]

    def block(self, number: int) -> Any:
        """Returns the rows of one block."""
        return self.matrix[number * ROWS : (number + 1) * ROWS]

    def groups(self) -> Iterator[tuple[int, Any]]:
        """Yields the index of the first row and the rows of each group of blocks."""
        for start in range(0, self.rows, ROWS * GROUP):
            yield start, self.matrix[start : start + ROWS * GROUP]


def block_count(rows: int) -> int:
    """Returns the number of blocks that hold `rows` rows."""
    return -(-rows // ROWS)


def csr_arrays(matrix: Any) -> dict[str, Any]:
    """Returns the plain arrays of a CSR matrix."""
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "width": matrix.shape[1]}


def csr_from_arrays(arrays: dict[str, Any]) -> Any:
    """Returns the CSR matrix of the arrays of `csr_arrays`."""
    from scipy.sparse import csr_matrix

    shape = (len(arrays["indptr"]) - 1, int(arrays["width"]))
    return csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)


def _stack_rows(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from scipy.sparse import vstack

    return vstack(parts, format="csr")
