"""Hits as arrays, and what every searcher has in common.

Legend: Q queries, K hits per query, C candidates per query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The best documents of each query, best first; equal scores are ordered by position.

    Attributes:
        positions: (Q, K) int64 positions in the index; −1 if a query has fewer hits. They are valid until the index
            is changed.
        scores: (Q, K) float32, larger is better; −∞ beside −1.
        empty: the number of queries without any active dimension, which have no hits.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]
    empty: int = 0


@runtime_checkable
class Retriever(Protocol):
    """Anything that finds documents: an index, a part of one, or several of them fused.

    What a query is depends on the retriever: a row of weights, a vector, a list of words or, in `workflows`, a text.
    """

    def search(self, queries: Any, k: int) -> Hits:
        """Returns the k best documents of each query."""
        ...


@runtime_checkable
class ScoringRetriever(Retriever, Protocol):
    """A retriever that can also score given documents."""

    def scores(self, queries: Any, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the exact scores (Q, C) of the documents at `positions` (Q, C); anything beside −1."""
        ...


def check_k(k: int) -> int:
    """Returns the number of hits to find.

    Raises:
        UsageError: it is not positive.
    """
    if k < 1:
        raise UsageError(f"the number of hits must be at least 1, not {k}.")
    return k


def no_hits(queries: int, k: int) -> Hits:
    """Returns the result of a search that finds nothing."""
    shape = (queries, k)
    return Hits(positions=np.full(shape, -1, dtype=np.int64), scores=np.full(shape, -np.inf, dtype=np.float32))


def best_of(positions: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Hits:
    """Returns the k best of each row: by descending score, then by position. Entries of −∞ are no hits.

    Args:
        positions: (Q, C), in any order and without repetition in a row, apart from −1.
        scores: (Q, C).
        k: hits per query; the result has this many columns, even if C is smaller.
    """
    positions = np.where(scores == -np.inf, -1, positions)
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    found = no_hits(len(positions), k)
    found.positions[:, : order.shape[1]] = np.take_along_axis(positions, order, 1)
    found.scores[:, : order.shape[1]] = np.take_along_axis(scores, order, 1)
    return found


def merge_hits(parts: Sequence[Hits], starts: Sequence[int], queries: int, k: int) -> Hits:
    """Merges the hits of several segments.

    Args:
        parts: the hits in each segment, by position in that segment.
        starts: the position in the index of each segment's first document.
        queries: the number of queries.
        k: hits per query.
    """
    if not parts:
        return no_hits(queries, k)
    if len(parts) == 1 and parts[0].positions.shape[1] == k:
        return parts[0]
    moved = [
        np.where(part.positions < 0, -1, part.positions + start) for part, start in zip(parts, starts, strict=True)
    ]
    return best_of(np.concatenate(moved, axis=1), np.concatenate([part.scores for part in parts], axis=1), k)
