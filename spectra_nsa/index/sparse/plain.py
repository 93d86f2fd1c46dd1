"""Scoring of posting lists by numpy alone: the hits of `kernels`, bit for bit, more slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def search_plain(
    starts: NDArray[np.int64],
    documents: NDArray[np.int32],
    weights_of: Any,
    queries: Any,
    count: int,
    dead: NDArray[np.bool_],
    positions: NDArray[np.int64],
    scores: NDArray[np.float32],
) -> bool:
    """Fills `positions` and `scores` (Q, K). Returns whether the postings are sound.

    Args:
        starts: (V + 1,) where the list of each term starts.
        documents: (P,) documents of all lists.
        weights_of: returns the weights of a slice of postings.
        queries: CSR rows with sorted indices.
        count: number of documents.
        dead: which documents are deleted; empty if none is.
        positions: filled with −1.
        scores: filled with −∞.
    """
    total = np.zeros(count, dtype=np.float32)
    for query in range(queries.shape[0]):
        total[:] = 0
        for at in range(queries.indptr[query], queries.indptr[query + 1]):
            term = queries.indices[at]
            part = slice(int(starts[term]), int(starts[term + 1]))
            listed = documents[part]
            if not is_sound(listed, count):
                return False
            total[listed] += queries.data[at] * weights_of(part)
        if len(dead):
            total[dead] = 0
        best = _best(total, positions.shape[1])
        positions[query, : len(best)] = best
        scores[query, : len(best)] = total[best]
    return True


def is_sound(listed: NDArray[np.int32], count: int) -> bool:
    """Returns whether a posting list ascends strictly and names only existing documents."""
    return not len(listed) or bool(listed[0] >= 0 and listed[-1] < count and (np.diff(listed) > 0).all())


def _best(total: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Returns the k documents of the largest positive scores; equal scores are ordered by position."""
    found = np.flatnonzero(total > 0)
    if len(found) > k:
        last = np.partition(total[found], -k)[-k]
        above, tied = found[total[found] > last], found[total[found] == last]
        found = np.concatenate([above, tied[: k - len(above)]])
    return found[np.lexsort((found, -total[found]))]
