"""Labeled texts: k-NN classification by the embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import (
    TaskOutcome,
    UnsuitableSystem,
    draws_difference,
    mean_differences,
    mean_result,
)
from spectra_nsa.evaluation.systems import DenseSystem

if TYPE_CHECKING:
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference

LabeledTexts = tuple[Sequence[str], Sequence[object]]


class KNNTask:
    """k-NN classification of test texts by their nearest training texts; no model is trained."""

    kind = "knn"

    def __init__(self, name: str, train: LabeledTexts, test: LabeledTexts, *, k: int = 10) -> None:
        """Initializes the task.

        Args:
            name: the dataset's name.
            train: texts and their labels.
            test: texts and their labels.
            k: neighbors per test text.

        Raises:
            SpectraError: there are no training or no test texts.
        """
        if not len(train[0]) or not len(test[0]):
            raise SpectraError(f"{name} needs labeled texts for training and for testing.")
        self.name = name
        self._train, self._test, self._k = train, test, k

    def run(self, system: System) -> TaskOutcome:
        """Encodes all texts and classifies the test texts."""
        from spectra_nsa.metrics.bootstrap import interval_of
        from spectra_nsa.metrics.knn import knn_classification, macro_f1_draws

        if not isinstance(system, DenseSystem):
            raise UnsuitableSystem(f"{system.name} has no dense vectors, but knn needs them")
        train, test = (system.encode_queries(list(texts)) for texts, _ in (self._train, self._test))
        scores = knn_classification(train, self._train[1], test, self._test[1], k=self._k)
        accuracy = mean_result(
            kind=self.kind, name=self.name, system=system.name, metric="accuracy", values=scores.correct
        )
        draws = macro_f1_draws(scores.wanted, scores.predicted)
        macro = Result(
            task=self.kind,
            name=self.name,
            system=system.name,
            metric="macro_f1",
            value=scores.macro_f1,
            ci=interval_of(draws),
            n=len(test),
        )
        per_unit = {"accuracy": scores.correct}
        return TaskOutcome(results=[accuracy, macro], per_unit=per_unit, draws={"macro_f1": draws})

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Compares accuracy and macro F1, paired over test texts."""
        return mean_differences(a, b) | draws_difference("macro_f1", a, b)
