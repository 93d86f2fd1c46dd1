"""How well codes stand for vectors: recall of the true neighbours among the first candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 256  # queries compared at a time


def candidate_places(wanted_QK: np.ndarray, scores_QN: np.ndarray) -> np.ndarray:
    """How many documents come before each wanted one, (Q, K): larger scores first, equal ones in order of index."""
    index_N = np.arange(scores_QN.shape[1])
    places_QK = np.empty(wanted_QK.shape, dtype=np.int64)
    for start in range(0, len(scores_QN), BLOCK):
        part = slice(start, start + BLOCK)
        scores_qN = scores_QN[part]
        for k, wanted_q1 in enumerate(wanted_QK[part].T[:, :, None]):
            own_q1 = np.take_along_axis(scores_qN, wanted_q1, 1)
            before_qN = (scores_qN > own_q1) | ((scores_qN == own_q1) & (index_N < wanted_q1))
            places_QK[part, k] = before_qN.sum(1)
    return places_QK


def candidate_recall(
    wanted_QK: np.ndarray, scores_QN: np.ndarray, candidates: Sequence[int] = (50, 100, 200, 400)
) -> dict[int, float]:
    """The share of each query's true top-k among its C best-scored documents, mean over queries.

    Args:
        wanted_QK: indices of the true top-k.
        scores_QN: larger = nearer; ties count in order of index.
        candidates: the C.
    """
    places_QK = candidate_places(wanted_QK, scores_QN)
    return {c: float((places_QK < c).mean()) for c in candidates}
