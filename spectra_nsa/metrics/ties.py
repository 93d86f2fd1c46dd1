"""Ranking metrics of a query whose documents share scores: the mean over all orders of the tied documents.

Source: McSherry & Najork 2008, "Computing information retrieval performance measures efficiently in the presence of
tied scores". The formulas for recall, precision, average precision and DCG are theirs; that of the reciprocal rank is
the exact mean.

Legend: N ranked documents, R relevant documents; ranks count from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class TiedRanking(NamedTuple):
    """The expectations at each rank of a ranking with ties.

    Attributes:
        start_N: the first rank of the document's group of equal scores, float64 as all others.
        size_N: the number of documents in the group.
        relevant_N: the number of relevant documents in the group.
        before_N: the number of relevant documents in better groups.
        gain_N: the mean gain of the group.
        ideal: the gains of all judged documents, in descending order.
        total: R, the number of relevant documents.
    """

    start_N: np.ndarray
    size_N: np.ndarray
    relevant_N: np.ndarray
    before_N: np.ndarray
    gain_N: np.ndarray
    ideal: np.ndarray
    total: int


def order_matters(scores: Mapping[str, float], grades: Mapping[str, int]) -> bool:
    """Returns whether documents of different grades share a score.

    Args:
        scores: document → score.
        grades: document → grade; documents that are not in it have the grade 0.
    """
    grade_of: dict[float, int] = {}
    for document, score in scores.items():
        grade = max(0, grades.get(document, 0))
        if grade_of.setdefault(score, grade) != grade:
            return True
    return False


def tied_ranking(scores: Mapping[str, float], grades: Mapping[str, int]) -> TiedRanking:
    """Groups the documents of a query by score, best first.

    Args:
        scores: document → score, not empty.
        grades: document → grade, at least one above 0; negative grades gain nothing, as in trec_eval.
    """
    import numpy as np

    score_N = np.array(list(scores.values()), dtype=np.float64)
    gain_N = np.array([max(0, grades.get(document, 0)) for document in scores], dtype=np.float64)
    order_N = np.argsort(-score_N, kind="stable")
    _, group_N, size_G = np.unique(-score_N[order_N], return_inverse=True, return_counts=True)
    relevant_G = np.bincount(group_N, weights=gain_N[order_N] > 0)
    mean_gain_G = np.bincount(group_N, weights=gain_N[order_N]) / size_G
    start_G = np.cumsum(size_G) - size_G + 1
    before_G = np.cumsum(relevant_G) - relevant_G
    ideal = np.sort([float(grade) for grade in grades.values() if grade > 0])[::-1]
    return TiedRanking(
        start_N=start_G[group_N].astype(np.float64),
        size_N=size_G[group_N].astype(np.float64),
        relevant_N=relevant_G[group_N],
        before_N=before_G[group_N],
        gain_N=mean_gain_G[group_N],
        ideal=ideal,
        total=len(ideal),
    )


def expected_value(ranking: TiedRanking, metric: str) -> float:
    """Returns the mean of a metric over all orders of tied documents.

    Args:
        ranking: from `tied_ranking`.
        metric: a name of `metrics.ranking.RANKING_METRICS`.
    """
    family, _, depth = metric.partition("@")
    return _FAMILIES[family](ranking, int(depth) if depth else len(ranking.size_N))


def _recall(ranking: TiedRanking, k: int) -> float:
    return float((ranking.relevant_N / ranking.size_N)[:k].sum()) / ranking.total


def _precision(ranking: TiedRanking, k: int) -> float:
    return float((ranking.relevant_N / ranking.size_N)[:k].sum()) / k


def _average_precision(ranking: TiedRanking, k: int) -> float:
    """P(relevant at i) · (1 + relevant in better groups + mean number of relevant in the group before i) / i."""
    import numpy as np

    rank_N = np.arange(1, len(ranking.size_N) + 1)
    inside_N = (rank_N - ranking.start_N) * (ranking.relevant_N - 1) / np.maximum(1, ranking.size_N - 1)
    precision_N = (1 + ranking.before_N + inside_N) / rank_N
    return float((ranking.relevant_N / ranking.size_N * precision_N)[:k].sum()) / ranking.total


def _dcg_share(ranking: TiedRanking, k: int) -> float:
    import numpy as np

    discount = 1 / np.log2(np.arange(2, k + 2))
    gain, ideal = ranking.gain_N[:k], ranking.ideal[:k]
    return float((gain * discount[: len(gain)]).sum() / (ideal * discount[: len(ideal)]).sum())


def _reciprocal_rank(ranking: TiedRanking, k: int) -> float:
    """Σ over ranks i of the first group with a relevant document: P(the first relevant one is at i) / i."""
    import numpy as np

    hits = np.flatnonzero(ranking.relevant_N)
    if not len(hits):
        return 0.0
    first = hits[0]
    start, size, relevant = (int(column[first]) for column in (ranking.start_N, ranking.size_N, ranking.relevant_N))
    value, none_before = 0.0, 1.0
    for offset in range(min(size - relevant + 1, k - start + 1)):
        here = relevant / (size - offset)
        value += none_before * here / (start + offset)
        none_before *= 1 - here
    return value


_FAMILIES: dict[str, Callable[[TiedRanking, int], float]] = {
    "ndcg": _dcg_share,
    "mrr": _reciprocal_rank,
    "recall": _recall,
    "precision": _precision,
    "map": _average_precision,
}
