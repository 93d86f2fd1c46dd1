"""The health of a system's embeddings on any texts: no judgements needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import TaskOutcome, UnsuitableSystem, defined
from spectra_nsa.evaluation.systems import DenseSystem

if TYPE_CHECKING:
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference


class StatisticsTask:
    """`metrics.embedding.embedding_statistics` on a sample of distinct texts."""

    kind = "statistics"

    def __init__(self, name: str, texts: Sequence[str], *, partners: Sequence[str] | None = None) -> None:
        """Takes texts.

        Args:
            name: the data set's name.
            texts: N texts; the first 2,000 distinct ones (of pairs: the first 2,000 pairs) are looked at.
            partners: N texts that belong to them, for the alignment; ``None`` without.

        Raises:
            SpectraError: there are none.
        """
        from spectra_nsa.metrics.embedding import SAMPLE

        if not len(texts):
            raise SpectraError(f"{name} holds no texts.")
        self.name = name
        rows = {text: at for at, text in reversed(list(enumerate(texts)))}
        kept = sorted(rows.values())[:SAMPLE]
        self._texts = [texts[at] for at in kept]
        self._partners = None if partners is None else [partners[at] for at in kept]

    def run(self, system: System) -> TaskOutcome:
        """Encodes and describes."""
        from spectra_nsa.metrics.embedding import embedding_statistics

        if not isinstance(system, DenseSystem):
            raise UnsuitableSystem(f"{system.name} has no embeddings, which statistics needs")
        vectors = system.encode_documents(self._texts)
        others = None if self._partners is None else system.encode_documents(self._partners)
        figures = embedding_statistics(vectors, partners=others)
        n = len(self._texts)
        results, notes = defined(
            [
                Result(task=self.kind, name=self.name, system=system.name, metric=metric, value=value, n=n)
                for metric, value in figures.items()
            ]
        )
        return TaskOutcome(results=results, notes=notes)

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Nothing: these figures are not means over units."""
        return {}
