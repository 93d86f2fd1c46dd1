"""Statistics of a system's embeddings on any texts, without relevance judgments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import TaskOutcome, UnsuitableSystem, split_undefined
from spectra_nsa.evaluation.systems import DenseSystem

if TYPE_CHECKING:
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference


class StatisticsTask:
    """The figures of `metrics.embedding.embedding_statistics` on a sample of distinct texts."""

    kind = "statistics"

    def __init__(self, name: str, texts: Sequence[str], *, partners: Sequence[str] | None = None) -> None:
        """Initializes the task.

        Args:
            name: the dataset's name.
            texts: N texts, of which the first 2,000 distinct ones are used.
            partners: N texts paired with them, for the alignment; ``None`` skips it.

        Raises:
            SpectraError: there are no texts.
        """
        from spectra_nsa.metrics.embedding import SAMPLE

        if not len(texts):
            raise SpectraError(f"{name} has no texts.")
        self.name = name
        rows = {text: at for at, text in reversed(list(enumerate(texts)))}
        kept = sorted(rows.values())[:SAMPLE]
        self._texts = [texts[at] for at in kept]
        self._partners = None if partners is None else [partners[at] for at in kept]

    def run(self, system: System) -> TaskOutcome:
        """Encodes the texts and computes the statistics."""
        from spectra_nsa.metrics.embedding import embedding_statistics

        if not isinstance(system, DenseSystem):
            raise UnsuitableSystem(f"{system.name} has no dense vectors, but statistics needs them")
        vectors = system.encode_documents(self._texts)
        partners = None if self._partners is None else system.encode_documents(self._partners)
        figures = embedding_statistics(vectors, partners=partners) | _flips(system.model, self._texts)
        n = len(self._texts)
        results, notes = split_undefined(
            [
                Result(task=self.kind, name=self.name, system=system.name, metric=metric, value=value, n=n)
                for metric, value in figures.items()
            ]
        )
        return TaskOutcome(results=results, notes=notes)

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Returns nothing: these figures are not means over units."""
        return {}


def _flips(model: Any, texts: Sequence[str]) -> dict[str, float]:
    """Returns how often a choice of experts depends on the batch; nothing of a model without experts."""
    spec = getattr(model, "spec", None)
    if getattr(spec, "ffn", None) != "moe":
        return {}
    from spectra_nsa.models.experts.flips import flip_rate

    return {f"router_flips_{precision}": flip_rate(model, texts, precision) for precision in ("fp32", "bf16")}
