"""nDCG@10 of queries that have one right document each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def known_item_ndcg(scores_QN: NDArray[np.floating], own_Q: NDArray[np.integer]) -> NDArray[np.float64]:
    """Returns nDCG@10 of each query; documents with equal scores share the mean of their ranks.

    Args:
        scores_QN: of each query and document.
        own_Q: the number of each query's document.
    """
    right_Q1 = scores_QN[np.arange(len(scores_QN)), own_Q][:, None]
    rank_Q = (scores_QN > right_Q1).sum(1) + ((scores_QN == right_Q1).sum(1) - 1) / 2
    return np.where(rank_Q < 10, 1 / np.log2(rank_Q + 2), 0.0)
