"""Scoring of posting lists by numba: one block of documents at a time, whose scores stay in the processor's cache.

Each function holds no lock of the interpreter, so several threads search different queries at once. Without numba,
`plain` gives the same hits, bit for bit: both add float32 products in the order of the query's terms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK = 1 << 16  # documents scored at a time: 256 KB


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function compiled by numba when it is first called; the machine code is cached beside its source."""
    from numba import njit

    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache can be written to
        return njit(nogil=True)(function)


@compiled
def _worse(score_a: float, position_a: int, score_b: float, position_b: int) -> bool:
    """Returns whether hit a is worse than hit b: its score is lower, or equal at a later position."""
    return score_a < score_b or (score_a == score_b and position_a > position_b)


@compiled
def _sift(positions: Any, scores: Any, at: int, size: int) -> None:
    """Moves an entry down a heap whose root is the worst hit."""
    while True:
        child = 2 * at + 1
        if child >= size:
            return
        right = child + 1
        if right < size and _worse(scores[right], positions[right], scores[child], positions[child]):
            child = right
        if not _worse(scores[child], positions[child], scores[at], positions[at]):
            return
        scores[at], scores[child] = scores[child], scores[at]
        positions[at], positions[child] = positions[child], positions[at]
        at = child


@compiled
def _collect(block: Any, base: int, count: int, dead: Any, positions: Any, scores: Any, size: int) -> int:
    """Moves the scores of a block into the heap of the best hits, and sets them to zero. Returns the heap's size."""
    k = len(scores)
    threshold = scores[0] if size == k else np.float32(0)
    for offset in range(count):
        score = block[offset]
        block[offset] = 0
        if score > threshold:
            if len(dead) and dead[base + offset]:
                continue
            if size < k:  # sift up
                at = size
                size += 1
                while at > 0:
                    parent = (at - 1) // 2
                    if not _worse(score, base + offset, scores[parent], positions[parent]):
                        break
                    scores[at], positions[at] = scores[parent], positions[parent]
                    at = parent
                scores[at], positions[at] = score, base + offset
            else:  # a later document of equal score does not pass the threshold
                scores[0], positions[0] = score, base + offset
                _sift(positions, scores, 0, k)
            if size == k:
                threshold = scores[0]
    return size


@compiled
def _finish(positions: Any, scores: Any, size: int) -> None:
    """Sorts a heap, best hit first."""
    for last in range(size - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        positions[0], positions[last] = positions[last], positions[0]
        _sift(positions, scores, 0, last)


@compiled
def search(
    starts: Any, documents: Any, impacts: Any, table: Any, terms: Any, weights: Any, ends: Any, count: int, dead: Any,
    positions: Any, scores: Any,
) -> bool:  # fmt: skip
    """Searches posting lists; fills `positions` and `scores` (Q, K). Returns whether the postings are sound.

    Args:
        starts: (V + 1,) where the list of each term starts.
        documents: (P,) int32.
        impacts: (P,) float32, or codes.
        table: what each code stands for; ``None`` for float32 impacts. numba compiles a function for each case.
        terms: the terms of all queries, one query after the other, ascending.
        weights: their weights.
        ends: (Q + 1,) where the terms of each query start.
        count: number of documents.
        dead: which documents are deleted; empty if none is.
        positions: (Q, K) int64, filled with −1.
        scores: (Q, K) float32, filled with −∞.
    """
    block = np.zeros(min(count, BLOCK), dtype=np.float32)
    for query in range(len(ends) - 1):
        first, last = ends[query], ends[query + 1]
        cursors = starts[terms[first:last]]
        size = 0
        for base in range(0, count, BLOCK):
            top = min(base + BLOCK, count)
            for j in range(last - first):
                at, end, weight = cursors[j], starts[terms[first + j] + 1], weights[first + j]
                while at < end and documents[at] < top:
                    offset = documents[at] - base
                    if offset < 0:
                        return False
                    block[offset] += weight * (impacts[at] if table is None else table[impacts[at]])
                    at += 1
                cursors[j] = at
            size = _collect(block, base, top - base, dead, positions[query], scores[query], size)
        for j in range(last - first):
            if cursors[j] < starts[terms[first + j] + 1]:
                return False
        _finish(positions[query], scores[query], size)
    return True
