"""Figures and documents of a ranking, for the tasks with retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.counts import counted
from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import RankedQuery, RetrievedDocument, mean_result
from spectra_nsa.evaluation.systems import Ranking
from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.metrics.ranking import RANKING_METRICS, ranking_metrics, tied_queries

if TYPE_CHECKING:
    import numpy as np

DEPTH = 100
SHOWN = 10


def ranking_figures(
    system: str,
    ranking: Ranking,
    query_ids: Sequence[str],
    document_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    metrics: Sequence[str] = RANKING_METRICS,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns metric → (Q,) values for the queries of a ranking, with the ranking's notes and one on open ties.

    Args:
        system: the name of the system that ranked.
        ranking: row i answers `query_ids[i]`.
        query_ids: Q ids, each with at least one relevant document in `qrels`.
        document_ids: N ids, indexed by the ranking.
        qrels: query → document → grade.
        metrics: names from `RANKING_METRICS`.

    Raises:
        SpectraError: a score is not finite.
    """
    check_finite(ranking.scores[ranking.index >= 0], system, "scores")
    run = {
        query: {document_ids[at]: float(score) for at, score in zip(row, scores, strict=True) if at >= 0}
        for query, row, scores in zip(query_ids, ranking.index.tolist(), ranking.scores.tolist(), strict=True)
    }
    judged = {query: qrels[query] for query in query_ids}
    tied = len(tied_queries(run, judged))
    note = (
        f"{system}: in {tied:,} of {counted(len(query_ids), 'query')}, documents of different relevance share a score; "
        "the figures are the mean over all orders of the tied documents"
    )
    return ranking_metrics(run, judged, metrics), [*ranking.notes, *([note] if tied else [])]


def ranking_results(values: Mapping[str, np.ndarray], *, kind: str, name: str, system: str) -> list[Result]:
    """Returns the mean of each metric over the queries, with its interval."""
    return [
        mean_result(kind=kind, name=name, system=system, metric=metric, values=array)
        for metric, array in values.items()
    ]


def without_documents(ranking: Ranking, excluded: Sequence[int | None], k: int) -> Ranking:
    """Returns the first k of each ranking without one document.

    Args:
        ranking: for Q queries.
        excluded: Q positions of documents; ``None`` excludes none.
        k: the number of documents to keep.
    """
    import numpy as np

    excluded_Q = np.array([-2 if position is None else position for position in excluded])
    drop_QN = ranking.index == excluded_Q[:, None]
    index = np.where(drop_QN, -1, ranking.index)
    scores = np.where(drop_QN, np.float32(-np.inf), ranking.scores)
    order = np.argsort(drop_QN, axis=1, kind="stable")[:, :k]
    return Ranking(
        index=np.take_along_axis(index, order, axis=1),
        scores=np.take_along_axis(scores, order, axis=1),
        notes=ranking.notes,
    )


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
