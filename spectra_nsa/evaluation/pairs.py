"""Pairs of anchor and positive: cosine statistics, and retrieval of each anchor's positive among all positives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.results import Result
from spectra_nsa.core.strings import DistinctSpellings
from spectra_nsa.evaluation.outcome import TaskOutcome, draws_difference, mean_differences, mean_result
from spectra_nsa.evaluation.ranked import DEPTH, ranked_queries, ranking_figures, ranking_results
from spectra_nsa.evaluation.systems import DenseSystem, Ranking, nearest
from spectra_nsa.metrics.bootstrap import interval_of
from spectra_nsa.metrics.detection import auroc_draws

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference
    from spectra_nsa.metrics.pairs import PairCheck


class PairsTask:
    """Retrieval of positives by anchors. An anchor that occurs in several pairs has several relevant documents.

    Each distinct text is encoded once, in its first spelling (see `DistinctSpellings`).
    """

    def __init__(self, name: str, anchors: Sequence[str], positives: Sequence[str], *, kind: str = "pairs") -> None:
        """Initializes the task.

        Args:
            name: the dataset's name.
            anchors: N texts.
            positives: N texts.
            kind: the kind of the task.

        Raises:
            SpectraError: there are fewer than two pairs with different positives.
        """
        self.kind, self.name = kind, name
        distinct_anchors, distinct_positives = DistinctSpellings(anchors), DistinctSpellings(positives)
        self._anchors, self._positives = distinct_anchors.texts, distinct_positives.texts
        if len(self._positives) < 2 or len(anchors) != len(positives):
            raise SpectraError(f"{name} needs at least two pairs with different positives.")
        self._rows = list(zip(distinct_anchors.numbers, distinct_positives.numbers, strict=True))

    def run(self, system: System) -> TaskOutcome:
        """Ranks all positives for each anchor. With embeddings, also compares cosines of pairs and non-pairs."""
        check: PairCheck | None = None
        if isinstance(system, DenseSystem):
            queries, documents = system.encode_queries(self._anchors), system.encode_documents(self._positives)
            ranking = nearest(queries, documents, DEPTH)
            check = self._check(queries, documents)
        else:
            ranking = system.search(self._anchors, self._positives, DEPTH)
        return self._outcome(system.name, ranking, check)

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Compares ranking metrics, paired over anchors, and cosines and AUROC, paired over pairs."""
        return mean_differences(a, b) | draws_difference("auroc", a, b)

    def _check(self, queries: np.ndarray, documents: np.ndarray) -> PairCheck:
        import numpy as np

        from spectra_nsa.metrics.pairs import draw_negatives, pair_check

        rows = np.array(self._rows)
        negatives = draw_negatives(rows[:, 1].tolist())
        return pair_check(queries[rows[:, 0]], documents[rows[:, 1]], negatives=negatives)

    def _outcome(self, system: str, ranking: Ranking, check: PairCheck | None) -> TaskOutcome:
        queries = {f"a{at}": text for at, text in enumerate(self._anchors)}
        documents = {f"p{at}": text for at, text in enumerate(self._positives)}
        qrels: dict[str, dict[str, int]] = {query: {} for query in queries}
        for anchor, positive in self._rows:
            qrels[f"a{anchor}"][f"p{positive}"] = 1
        values, notes = ranking_figures(system, ranking, list(queries), list(documents), qrels)
        results = ranking_results(values, kind=self.kind, name=self.name, system=system)
        distributions: dict[str, np.ndarray] = {}
        draws: dict[str, np.ndarray] = {}
        if check is not None:
            cosines = {"positive_cosine": check.positive, "negative_cosine": check.negative}
            extra = {"pair_accuracy": check.closer, **cosines}
            results += [
                mean_result(kind=self.kind, name=self.name, system=system, metric=metric, values=array)
                for metric, array in extra.items()
            ]
            draws = {"auroc": auroc_draws(check.positive, check.negative)}
            results.append(self._auroc(system, check, draws["auroc"]))
            values |= extra
            distributions = cosines
        examples = ranked_queries(ranking, queries, documents, qrels)
        return TaskOutcome(
            results=results,
            per_unit=values,
            draws=draws,
            queries=examples,
            distributions=distributions,
            notes=notes,
        )

    def _auroc(self, system: str, check: PairCheck, draws: np.ndarray) -> Result:
        ci, n = interval_of(draws), len(check.positive)
        return Result(task=self.kind, name=self.name, system=system, metric="auroc", value=check.auroc, ci=ci, n=n)
