"""Ranking metrics with one value per query, computed by ir_measures, and by `metrics.ties` if scores are equal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import UsageError, unknown_name
from spectra_nsa.metrics.ties import expected_value, order_matters, tied_ranking

if TYPE_CHECKING:
    import numpy as np

# Our name → the name in ir_measures.
_MEASURES = {
    "ndcg@10": "nDCG@10",
    "mrr": "RR",
    "mrr@10": "RR@10",
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "recall@100": "R@100",
    "precision@1": "P@1",
    "precision@10": "P@10",
    "map": "AP",
}
RANKING_METRICS = tuple(_MEASURES)


def judged_queries(qrels: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns the queries with at least one relevant document (a judgment above 0), in the order of `qrels`."""
    return [query for query, judged in qrels.items() if any(grade > 0 for grade in judged.values())]


def ranking_metrics(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    metrics: Sequence[str] = RANKING_METRICS,
) -> dict[str, np.ndarray]:
    """Computes each metric for each judged query.

    For a ranking d₁, d₂, … with grades g(d), R relevant documents (g > 0) and the ideal order d*:
    DCG@k = Σ_{i ≤ k} g(dᵢ) / log₂(i + 1) (linear gain, as in trec_eval) and nDCG@k = DCG@k / DCG*@k;
    MRR = 1 / (rank of the first relevant document); Recall@k = relevant in the first k / R (with one relevant document,
    Recall@1 is success at 1); Precision@k = relevant in the first k / k; MAP's per-query value =
    1/R · Σ over relevant documents of Precision at their rank. Documents missing from `run` count as not found.

    If a relevant document shares its score with a less relevant one, the value is the mean over all orders of the tied
    documents (`metrics.ties`). So a value depends neither on ids nor on the order of the documents.

    Args:
        run: query → document → score, larger = better.
        qrels: query → document → grade; 0 = not relevant.
        metrics: names from `RANKING_METRICS`.

    Returns:
        metric → (Q,) float64, in the order of `judged_queries(qrels)`. A query without results has the value 0.
        A query without a relevant document is skipped, because its metrics are undefined.

    Raises:
        UsageError: a metric is unknown, or a grade is not a whole number.
    """
    import ir_measures
    import numpy as np

    for name in metrics:
        if name not in _MEASURES:
            raise unknown_name("ranking metric", name, _MEASURES)
    queries = judged_queries(qrels)
    row = {query: position for position, query in enumerate(queries)}
    measures = {ir_measures.parse_measure(_MEASURES[name]): name for name in metrics}
    values = {name: np.zeros(len(queries)) for name in metrics}
    if not queries:
        return values
    judged = {query: {document: _whole(grade) for document, grade in qrels[query].items()} for query in queries}
    tied = set(tied_queries(run, judged))
    ranked = {query: _strict_order(run[query]) for query in queries if run.get(query) and query not in tied}
    for value in ir_measures.iter_calc(list(measures), judged, ranked):
        values[measures[value.measure]][row[value.query_id]] = value.value
    for query in tied:
        ranking = tied_ranking(run[query], judged[query])
        for name in metrics:
            values[name][row[query]] = expected_value(ranking, name)
    return values


def tied_queries(run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Returns the judged queries with a relevant document that shares its score with a less relevant one.

    Args:
        run: query → document → score.
        qrels: query → document → grade.

    Raises:
        UsageError: a score is not finite.
    """
    queries = [query for query in judged_queries(qrels) if run.get(query)]
    for query in queries:
        bad = next((score for score in run[query].values() if not math.isfinite(score)), None)
        if bad is not None:
            raise UsageError(f"query {query!r} has a document with the score {bad}: only finite scores can be ranked.")
    return [query for query in queries if order_matters(run[query], qrels[query])]


def _whole(grade: float) -> int:
    if grade != int(grade):
        raise UsageError(f"the grade {grade} is not a whole number: scale the grades, such as by 10, or round them.")
    return int(grade)


def _strict_order(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns distinct scores in the order of descending score, then ascending id. Backends break ties differently."""
    order: list[Any] = sorted(scores, key=lambda document: (-scores[document], document))
    return {document: float(len(order) - position) for position, document in enumerate(order)}
