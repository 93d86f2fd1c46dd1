"""Retrieval: queries, documents and relevance judgments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.evaluation.outcome import TaskOutcome, mean_differences
from spectra_nsa.evaluation.ranked import DEPTH, ranked_queries, ranking_figures, ranking_results
from spectra_nsa.metrics.ranking import judged_queries

if TYPE_CHECKING:
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference
    from spectra_nsa.text.rows import RetrievalSet


class RetrievalTask:
    """Ranking metrics over the hundred best documents of each judged query, by exact search."""

    kind = "retrieval"

    def __init__(self, data: RetrievalSet) -> None:
        """Initializes the task. Queries without a relevant document are skipped, as in trec_eval.

        Raises:
            SpectraError: no query of the dataset has a relevant document.
        """
        self.name = data.name
        self._documents = data.corpus
        self._qrels = data.qrels
        self._queries = {query: data.queries[query] for query in judged_queries(data.qrels) if query in data.queries}
        if not self._queries or not self._documents:
            raise SpectraError(f"{data.name} has no documents, or its qrels name no relevant document for any query.")

    def run(self, system: System) -> TaskOutcome:
        """Ranks the documents and computes the metrics."""
        ids = list(self._documents)
        ranking = system.search(list(self._queries.values()), list(self._documents.values()), DEPTH)
        values = ranking_figures(ranking, list(self._queries), ids, self._qrels)
        return TaskOutcome(
            results=ranking_results(values, kind=self.kind, name=self.name, system=system.name),
            per_unit=values,
            queries=ranked_queries(ranking, self._queries, self._documents, self._qrels),
        )

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Compares the metrics, paired over queries."""
        return mean_differences(a, b)
