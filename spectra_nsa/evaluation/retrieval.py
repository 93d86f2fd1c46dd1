"""Retrieval: queries, documents and relevance judgments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.evaluation.outcome import TaskOutcome, mean_differences
from spectra_nsa.evaluation.ranked import DEPTH, ranked_queries, ranking_figures, ranking_results, without_documents
from spectra_nsa.metrics.ranking import RANKING_METRICS, judged_queries
from spectra_nsa.text.beir import is_own_document

if TYPE_CHECKING:
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference
    from spectra_nsa.text.rows import RetrievalSet


class RetrievalTask:
    """Ranking metrics over the best documents of each judged query, by exact search.

    A query that is itself a document (as in ArguAna and Quora) does not retrieve itself.
    """

    def __init__(
        self,
        data: RetrievalSet,
        *,
        kind: str = "retrieval",
        metrics: Sequence[str] = RANKING_METRICS,
        depth: int = DEPTH,
    ) -> None:
        """Initializes the task. Queries without a relevant document are skipped, as in trec_eval.

        Args:
            data: the texts and judgments.
            kind: the kind of the task, such as the name of a protocol.
            metrics: names from `RANKING_METRICS`, the main one first.
            depth: the number of documents that count.

        Raises:
            SpectraError: no query of the dataset has a relevant document.
        """
        self.kind, self.name = kind, data.name
        self._metrics, self._depth = metrics, depth
        self._latest: tuple[System, TaskOutcome] | None = None
        self._documents = data.corpus
        self._qrels = data.qrels
        self._queries = {query: data.queries[query] for query in judged_queries(data.qrels) if query in data.queries}
        if not self._queries or not self._documents:
            raise SpectraError(f"{data.name} has no documents, or its qrels name no relevant document for any query.")
        position = {document: at for at, document in enumerate(self._documents)}
        self._own = [position[query] if self._is_document(query) else None for query in self._queries]

    @property
    def notes(self) -> list[str]:
        """Remarks on the data, the same for every system."""
        own = len(self._own) - self._own.count(None)
        if not own:
            return []
        return [f"{self.name}: {counted(own, 'query')} found among the documents, each left out of its own ranking"]

    def run(self, system: System) -> TaskOutcome:
        """Ranks the documents and computes the metrics."""
        self._latest = system, self._run(system)
        return self._latest[1]

    def outcome(self, system: System) -> TaskOutcome:
        """Returns what `run` returned last for a system; runs it if that was another system."""
        return self._latest[1] if self._latest is not None and self._latest[0] is system else self.run(system)

    def _run(self, system: System) -> TaskOutcome:
        ids = list(self._documents)
        depth = self._depth + any(own is not None for own in self._own)
        ranking = system.search(list(self._queries.values()), list(self._documents.values()), depth)
        ranking = without_documents(ranking, self._own, self._depth)
        values, notes = ranking_figures(
            system.name, ranking, list(self._queries), ids, self._qrels, metrics=self._metrics
        )
        return TaskOutcome(
            results=ranking_results(values, kind=self.kind, name=self.name, system=system.name),
            per_unit=values,
            queries=ranked_queries(ranking, self._queries, self._documents, self._qrels),
            notes=notes,
        )

    def _is_document(self, query: str) -> bool:
        """Returns whether a query is itself a document, and no answer to itself."""
        if self._qrels[query].get(query, 0) > 0:
            return False
        return is_own_document(self._queries[query], self._documents.get(query))

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Compares the metrics, paired over queries."""
        return mean_differences(a, b)
