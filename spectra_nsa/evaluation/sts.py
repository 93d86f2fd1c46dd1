"""Scored pairs: the correlation of cosines with human similarity scores, by dense or sparse vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import TaskOutcome, UnsuitableSystem, split_undefined
from spectra_nsa.evaluation.sparse.system import SparseSystem
from spectra_nsa.evaluation.systems import DenseSystem

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference

_METHODS = ("spearman", "pearson")


class STSTask:
    """Spearman and Pearson correlation of cosine and score. Both sides are encoded as queries."""

    kind = "sts"

    def __init__(self, name: str, first: Sequence[str], second: Sequence[str], scores: Sequence[float]) -> None:
        """Initializes the task with N scored pairs.

        Raises:
            SpectraError: there are fewer than two pairs, or the columns differ in length.
        """
        import numpy as np

        if not len(first) == len(second) == len(scores) or len(first) < 2:
            raise SpectraError(f"{name} needs at least two scored pairs.")
        self.name = name
        self._first, self._second = list(first), list(second)
        self._scores = np.asarray(scores, dtype=np.float64)

    def run(self, system: System) -> TaskOutcome:
        """Encodes each distinct sentence once and correlates cosines with scores."""
        from spectra_nsa.metrics.similarity import cosine_pairs, sparse_cosine_pairs

        if not isinstance(system, DenseSystem | SparseSystem):
            raise UnsuitableSystem(f"{system.name} has no vectors of single texts, but sts needs them")
        sentences = list(dict.fromkeys([*self._first, *self._second]))
        row = {sentence: at for at, sentence in enumerate(sentences)}
        vectors: Any = system.encode_queries(sentences)
        first, second = ([row[sentence] for sentence in side] for side in (self._first, self._second))
        cosines = cosine_pairs if isinstance(system, DenseSystem) else sparse_cosine_pairs
        cosine = cosines(vectors[first], vectors[second])
        results, notes = split_undefined([self._result(system.name, method, cosine) for method in _METHODS])
        notes = [f"{note}: the scores or the cosines are all equal or not finite" for note in notes]
        per_unit = {"cosine": cosine, "gold": self._scores}
        return TaskOutcome(results=results, per_unit=per_unit, notes=notes, distributions={"cosine": cosine})

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Compares the correlations, paired over the scored pairs: each bootstrap sample serves both systems."""
        from spectra_nsa.metrics.bootstrap import paired_correlation_difference

        if not a.results or not b.results:
            return {}
        ours, theirs = a.per_unit["cosine"], b.per_unit["cosine"]
        return {method: paired_correlation_difference(ours, theirs, self._scores, method=method) for method in _METHODS}

    def _result(self, system: str, method: str, cosine: np.ndarray) -> Result:
        from spectra_nsa.metrics import similarity
        from spectra_nsa.metrics.bootstrap import correlation_interval

        value = {"spearman": similarity.spearman, "pearson": similarity.pearson}[method](cosine, self._scores)
        ci = correlation_interval(cosine, self._scores, method=method)
        n = len(cosine)
        return Result(task=self.kind, name=self.name, system=system, metric=method, value=value, ci=ci, n=n)
