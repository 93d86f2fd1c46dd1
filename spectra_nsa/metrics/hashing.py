"""How well codes stand for vectors: recall of the true neighbours among the first candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def candidate_recall(
    wanted_QK: np.ndarray, scores_QN: np.ndarray, candidates: Sequence[int] = (50, 100, 200, 400)
) -> dict[int, float]:
    """The share of each query's true top-k among its C best-scored documents, mean over queries.

    Args:
        wanted_QK: indices of the true top-k.
        scores_QN: larger = nearer; ties count as the sort leaves them.
        candidates: the C.
    """
    deepest = max(candidates)
    order_QC = np.argsort(-scores_QN, axis=1, kind="stable")[:, :deepest]
    hits_QC = (order_QC[:, :, None] == wanted_QK[:, None, :]).any(-1)
    return {c: float(hits_QC[:, :c].sum(1).mean() / wanted_QK.shape[1]) for c in candidates}
