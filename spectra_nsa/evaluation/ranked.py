"""From a system's ranking to figures and examples: what retrieval and pairs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import Hit, QueryHits, mean_result
from spectra_nsa.evaluation.systems import Ranking
from spectra_nsa.metrics.ranking import RANKING_METRICS, ranking_metrics

if TYPE_CHECKING:
    import numpy as np

DEPTH = 100
SHOWN = 10


def ranking_figures(
    ranking: Ranking, query_ids: Sequence[str], document_ids: Sequence[str], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, np.ndarray]:
    """metric → (Q,) values for the queries of a ranking.

    Args:
        ranking: row i answers `query_ids[i]`.
        query_ids: Q ids, each with at least one relevant document in `qrels`.
        document_ids: N ids, in the order the ranking's positions refer to.
        qrels: query → document → grade.
    """
    run = {
        query: {document_ids[at]: float(score) for at, score in zip(row, scores, strict=True) if at >= 0}
        for query, row, scores in zip(query_ids, ranking.index.tolist(), ranking.scores.tolist(), strict=True)
    }
    return ranking_metrics(run, {query: qrels[query] for query in query_ids}, RANKING_METRICS)


def ranking_results(values: Mapping[str, np.ndarray], *, kind: str, name: str, system: str) -> list[Result]:
    """The mean of each metric over the queries, with its interval."""
    return [
        mean_result(kind=kind, name=name, system=system, metric=metric, values=array)
        for metric, array in values.items()
    ]


def ranking_hits(
    ranking: Ranking,
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
) -> list[QueryHits]:
    """The ten best of each query beside what was wanted. `ranking` row i answers the i-th query of `queries`."""
    ids = list(documents)
    hits = []
    for (query, text), row, scores in zip(queries.items(), ranking.index, ranking.scores, strict=True):
        relevant = {document for document, grade in qrels[query].items() if grade > 0}
        order = [ids[at] for at in row if at >= 0]
        rank = next((place for place, document in enumerate(order, 1) if document in relevant), None)
        found = [
            Hit(id=document, text=documents[document], score=float(score), relevant=document in relevant)
            for document, score in zip(order[:SHOWN], scores, strict=False)
        ]
        wanted = [documents[document] for document in qrels[query] if document in relevant and document in documents]
        hits.append(QueryHits(id=query, query=text, wanted=wanted, found=found, rank=rank))
    return hits
