"""Figures and documents of a ranking, for the tasks with retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import RankedQuery, RetrievedDocument, mean_result
from spectra_nsa.evaluation.systems import Ranking
from spectra_nsa.metrics.ranking import RANKING_METRICS, ranking_metrics

if TYPE_CHECKING:
    import numpy as np

DEPTH = 100
SHOWN = 10


def ranking_figures(
    ranking: Ranking, query_ids: Sequence[str], document_ids: Sequence[str], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, np.ndarray]:
    """Returns metric → (Q,) values for the queries of a ranking.

    Args:
        ranking: row i answers `query_ids[i]`.
        query_ids: Q ids, each with at least one relevant document in `qrels`.
        document_ids: N ids, indexed by the ranking.
        qrels: query → document → grade.
    """
    run = {
        query: {document_ids[at]: float(score) for at, score in zip(row, scores, strict=True) if at >= 0}
        for query, row, scores in zip(query_ids, ranking.index.tolist(), ranking.scores.tolist(), strict=True)
    }
    return ranking_metrics(run, {query: qrels[query] for query in query_ids}, RANKING_METRICS)


def ranking_results(values: Mapping[str, np.ndarray], *, kind: str, name: str, system: str) -> list[Result]:
    """Returns the mean of each metric over the queries, with its interval."""
    return [
        mean_result(kind=kind, name=name, system=system, metric=metric, values=array)
        for metric, array in values.items()
    ]


def ranked_queries(
    ranking: Ranking,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
) -> list[RankedQuery]:
    """Returns the ten best and the relevant documents of each query. Row i of `ranking` answers the i-th query."""
    ids = list(documents)
    ranked = []
    for (query, text), row, scores in zip(queries.items(), ranking.index, ranking.scores, strict=True):
        relevant = {document for document, grade in qrels[query].items() if grade > 0}
        order = [ids[at] for at in row if at >= 0]
        rank = next((rank for rank, document in enumerate(order, 1) if document in relevant), None)
        retrieved = [
            RetrievedDocument(id=document, text=documents[document], score=float(score), relevant=document in relevant)
            for document, score in zip(order[:SHOWN], scores, strict=False)
        ]
        wanted = [documents[document] for document in qrels[query] if document in relevant and document in documents]
        ranked.append(RankedQuery(id=query, query=text, wanted=wanted, retrieved=retrieved, rank=rank))
    return ranked
