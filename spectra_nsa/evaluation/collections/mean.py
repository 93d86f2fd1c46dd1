"""The mean over the sets of a collection, where every set counts the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spectra_nsa.core.results import Result
from spectra_nsa.evaluation.outcome import TaskOutcome, draws_difference

if TYPE_CHECKING:
    from spectra_nsa.evaluation.retrieval import RetrievalTask
    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference


class MeanTask:
    """The mean of each metric over several sets. Run it after them: it reuses what they measured."""

    def __init__(self, kind: str, sets: Sequence[RetrievalTask]) -> None:
        """Initializes the task.

        Args:
            kind: the kind of the sets.
            sets: at least two sets of different names.
        """
        self.kind = kind
        self.name = f"mean of {len(sets)}"
        self._sets = sets

    def run(self, system: System) -> TaskOutcome:
        """Averages the sets. A draw of the interval takes queries within each set."""
        import numpy as np

        from spectra_nsa.metrics.bootstrap import interval_of, mean_draws

        outcomes = [one.outcome(system) for one in self._sets]
        results, draws = [], {}
        for metric in outcomes[0].per_unit:
            values = [outcome.per_unit[metric] for outcome in outcomes]
            # Another seed for each set, or the same rows would be drawn in sets of one size.
            drawn = [mean_draws(per_query, seed=seed) for seed, per_query in enumerate(values)]
            draws[metric] = np.mean(drawn, axis=0)
            results.append(
                Result(
                    task=self.kind,
                    name=self.name,
                    system=system.name,
                    metric=metric,
                    value=float(sum(per_query.mean() for per_query in values) / len(values)),
                    ci=interval_of(draws[metric]),
                    n=sum(map(len, values)),
                )
            )
        return TaskOutcome(results=results, draws=draws)

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Compares the means, paired over the queries of each set."""
        found: dict[str, Difference] = {}
        for metric in a.draws:
            found |= draws_difference(metric, a, b)
        return found
