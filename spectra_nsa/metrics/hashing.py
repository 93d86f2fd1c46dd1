"""The quality of binary codes: recall of the true nearest neighbors among the best candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BLOCK = 256  # queries compared at a time


def candidate_ranks(wanted_QK: np.ndarray, scores_QN: np.ndarray) -> np.ndarray:
    """Returns the rank of each wanted document, (Q, K), from 0. Larger scores come first, ties in order of index."""
    index_N = np.arange(scores_QN.shape[1])
    ranks_QK = np.empty(wanted_QK.shape, dtype=np.int64)
    for start in range(0, len(scores_QN), BLOCK):
        part = slice(start, start + BLOCK)
        scores_qN = scores_QN[part]
        for k, wanted_q1 in enumerate(wanted_QK[part].T[:, :, None]):
            wanted_score_q1 = np.take_along_axis(scores_qN, wanted_q1, 1)
            before_qN = (scores_qN > wanted_score_q1) | ((scores_qN == wanted_score_q1) & (index_N < wanted_q1))
            ranks_QK[part, k] = before_qN.sum(1)
    return ranks_QK


def candidate_recall(
    wanted_QK: np.ndarray, scores_QN: np.ndarray, candidates: Sequence[int] = (50, 100, 200, 400)
) -> dict[int, float]:
    """Computes the fraction of the true top-k among the C best-scored documents, as a mean over queries.

    Args:
        wanted_QK: the indices of the true top-k.
        scores_QN: the scores of all documents, larger = nearer; ties rank in order of index.
        candidates: the values of C.

    Returns:
        C → recall.
    """
    ranks_QK = candidate_ranks(wanted_QK, scores_QN)
    return {c: float((ranks_QK < c).mean()) for c in candidates}
