"""The part of an index that is searched by dense vectors: exactly, by inner product, memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError, unknown_name
from spectra_nsa.index.arrays import damaged, map_array, new_array
from spectra_nsa.index.hits import Hits, best_of, no_hits
from spectra_nsa.index.parts import Source

NAME = "vectors.npy"
STORED = ("float16", "float32")
_ROWS = 16_384  # vectors scored at a time
_QUERIES = 256


class Vectors:
    """The vectors of one segment.

    Args:
        folder: the segment's folder.
        documents: number of documents.
        width: dimensions of a vector.
        stored: type of its numbers on disk.

    Raises:
        SpectraError: the file is damaged.
    """

    def __init__(self, folder: Path, documents: int, width: int, stored: str) -> None:
        self.path = folder / NAME
        self.vectors = map_array(self.path, stored, documents, ndim=2)
        if self.vectors.shape[1] != width:
            raise damaged(self.path, f"its vectors have {self.vectors.shape[1]} dimensions instead of {width}")

    def search(self, queries: NDArray[np.float32], k: int, dead: NDArray[np.bool_]) -> Hits:
        """Returns the k nearest documents of each query by inner product."""
        found = [no_hits(0, k)]
        for first in range(0, len(queries), _QUERIES):
            found.append(self._search(queries[first : first + _QUERIES], k, dead))
        return Hits(
            positions=np.concatenate([hits.positions for hits in found]),
            scores=np.concatenate([hits.scores for hits in found]),
        )

    def _search(self, queries: NDArray[np.float32], k: int, dead: NDArray[np.bool_]) -> Hits:
        best = no_hits(len(queries), k)
        for start in range(0, len(self.vectors), _ROWS):
            scores = queries @ self.vectors[start : start + _ROWS].astype(np.float32, copy=False).T
            if len(dead):
                scores[:, dead[start : start + _ROWS]] = -np.inf
            found = _cut_ties(scores, min(k, scores.shape[1]))
            values = np.take_along_axis(scores, found, 1)
            together = np.concatenate([best.positions, found + start], axis=1)
            best = best_of(together, np.concatenate([best.scores, values], axis=1), k)
        return best

    def scores(self, queries: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the scores (Q, C) of documents; positions of −1 get any score."""
        found = np.zeros(positions.shape, dtype=np.float32)
        for row, at in enumerate(positions):
            found[row] = self.vectors[np.maximum(at, 0)].astype(np.float32, copy=False) @ queries[row]
        return found

    def check(self) -> None:
        """Checks that all numbers are finite."""
        for start in range(0, len(self.vectors), _ROWS):
            if not np.isfinite(self.vectors[start : start + _ROWS]).all():
                raise damaged(self.path, "a number is not finite")


def _cut_ties(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Returns the positions of the k largest scores of each row, in any order; of equal ones the first."""
    if k == scores.shape[1]:
        return np.broadcast_to(np.arange(k), scores.shape)
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    last = np.take_along_axis(scores, top, 1).min(1, keepdims=True)
    for row in np.flatnonzero((scores >= last).sum(1) > k):
        above = np.flatnonzero(scores[row] > last[row])
        top[row] = np.concatenate([above, np.flatnonzero(scores[row] == last[row])[: k - len(above)]])
    return top


class VectorsPart:
    """Dense vectors.

    Args:
        width: dimensions of a vector.
        stored: ``"float16"`` or ``"float32"``.
    """

    def __init__(self, width: int, stored: str = "float16") -> None:
        if type(width) is not int or width < 1:
            raise SpectraError(f"vectors cannot have {width!r} dimensions.")
        if stored not in STORED:
            raise unknown_name("type of vectors", stored, STORED)
        self.width, self.stored = width, stored

    def settings(self) -> dict[str, Any]:
        """Returns its kind and settings."""
        return {"kind": "vectors", "width": self.width, "stored": self.stored}

    def count(self, rows: Any) -> int:
        """Returns the number of vectors. Raises `SpectraError` if they have another width or are not finite."""
        return len(self._checked(rows, "documents"))

    def write(self, folder: Path, rows: Any) -> None:
        """Writes the vectors of a new segment."""
        np.save(folder / NAME, self._checked(rows, "documents").astype(self.stored))

    def merge(self, folder: Path, sources: Sequence[Source]) -> None:
        """Writes the kept vectors of other segments."""
        merged = new_array(folder / NAME, self.stored, (sum(len(source.kept) for source in sources), self.width))
        start = 0
        for source in sources:
            vectors = self.open(source.folder, source.documents).vectors
            for first in range(0, len(source.kept), _ROWS):
                rows = source.kept[first : first + _ROWS]
                merged[start : start + len(rows)] = vectors[rows]
                start += len(rows)

    def open(self, folder: Path, documents: int) -> Vectors:
        """Opens the vectors of a segment."""
        return Vectors(folder, documents, self.width, self.stored)

    def prepare(self, queries: Any, segments: Sequence[Vectors]) -> NDArray[np.float32]:
        """Returns the queries as float32. Raises `SpectraError` if they have another width or are not finite."""
        return self._checked(queries, "queries")

    def query_count(self, prepared: NDArray[np.float32]) -> tuple[int, int]:
        """Returns the number of queries; each has active dimensions."""
        return len(prepared), 0

    def _checked(self, rows: Any, what: str) -> NDArray[np.float32]:
        vectors = np.asarray(rows, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise SpectraError(
                f"the {what} have the shape {vectors.shape}, but the index has {self.width} dimensions. Encode them "
                "with the model that the index was built with."
            )
        if not np.isfinite(vectors).all():
            raise SpectraError(f"the vectors of {what} are not finite.")
        return vectors
