"""Retrieval: queries, documents, judgements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.evaluation.outcome import TaskOutcome, mean_differences
from spectra_nsa.evaluation.ranked import DEPTH, ranking_figures, ranking_hits, ranking_results
from spectra_nsa.metrics.ranking import judged_queries

if TYPE_CHECKING:
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference
    from spectra_nsa.text.rows import RetrievalSet


class RetrievalTask:
    """The first hundred documents of each judged query, by exact search, and the ranking metrics over them."""

    kind = "retrieval"

    def __init__(self, data: RetrievalSet) -> None:
        """Takes a retrieval set; queries without a relevant document are left out, as in trec_eval.

        Raises:
            SpectraError: no query of the set has a relevant document.
        """
        self.name = data.name
        self._documents = data.corpus
        self._qrels = data.qrels
        self._queries = {query: data.queries[query] for query in judged_queries(data.qrels) if query in data.queries}
        if not self._queries or not self._documents:
            raise SpectraError(f"{data.name} has no documents, or no query with a relevant one in its qrels.")

    def run(self, system: System) -> TaskOutcome:
        """Ranks and scores."""
        ids = list(self._documents)
        ranking = system.search(list(self._queries.values()), list(self._documents.values()), DEPTH)
        values = ranking_figures(ranking, list(self._queries), ids, self._qrels)
        return TaskOutcome(
            results=ranking_results(values, kind=self.kind, name=self.name, system=system.name),
            per_unit=values,
            hits=ranking_hits(ranking, self._queries, self._documents, self._qrels),
        )

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Paired over queries."""
        return mean_differences(a, b)
