"""The outcome of a task: figures, the values behind them, and queries with their documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from spectra_nsa.core.results import Result

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference
    from spectra_nsa.report.panels import Panel


@dataclass(frozen=True, kw_only=True)
class RetrievedDocument:
    """One retrieved document: its id, text and score, and whether it is relevant to the query."""

    id: str
    text: str
    score: float
    relevant: bool


@dataclass(frozen=True, kw_only=True)
class RankedQuery:
    """One query with its best documents.

    Attributes:
        id: the query's id.
        query: the query's text.
        wanted: the texts of the relevant documents.
        retrieved: the ten best documents.
        rank: the rank of the first relevant document, from 1; ``None`` if it is not among the first hundred.
    """

    id: str
    query: str
    wanted: Sequence[str]
    retrieved: Sequence[RetrievedDocument]
    rank: int | None


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """One system on one task.

    Attributes:
        results: the figures.
        per_unit: metric → (n,) values whose mean is the figure: one per query, pair or text, in the task's order.
            For scored pairs: ``cosine`` and ``gold``.
        draws: metric → (resamples,) its value in each bootstrap draw, for figures that are not means over units. The
            draws of two systems are of the same units.
        queries: for tasks with retrieval, one entry per judged query.
        distributions: name → cosines for a histogram, such as those of positives and negatives.
        panels: what a report shows besides.
        details: what the JSON document has besides, with values that JSON can hold.
        notes: remarks for the reader, such as why a figure is undefined, or how many texts were skipped.
    """

    results: list[Result]
    per_unit: Mapping[str, np.ndarray] = field(default_factory=dict)
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)
    queries: Sequence[RankedQuery] = ()
    distributions: Mapping[str, np.ndarray] = field(default_factory=dict)
    panels: Sequence[Panel] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Task(Protocol):
    """A task on which systems are measured."""

    kind: str
    name: str

    def run(self, system: System) -> TaskOutcome:
        """Measures one system.

        Raises:
            UnsuitableSystem: the system lacks what the task needs (BM25 has no dense vectors).
        """
        ...

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """Returns metric → a − b with its paired interval; empty if the task has no units to pair."""
        ...


class UnsuitableSystem(Exception):
    """The system lacks what the task needs, such as dense vectors. It is skipped with a note."""


def mean_result(*, kind: str, name: str, system: str, metric: str, values: np.ndarray) -> Result:
    """Returns the mean of per-unit values with its bootstrap interval."""
    from spectra_nsa.metrics.bootstrap import mean_interval

    return Result(
        task=kind,
        name=name,
        system=system,
        metric=metric,
        value=float(values.mean()),
        ci=mean_interval(values),
        n=len(values),
    )


def mean_differences(a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
    """Returns the paired difference of each metric for which both outcomes have per-unit values."""
    from spectra_nsa.metrics.bootstrap import paired_difference

    shared = [metric for metric in a.per_unit if metric in b.per_unit]
    return {metric: paired_difference(a.per_unit[metric], b.per_unit[metric]) for metric in shared}


def draws_difference(metric: str, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
    """Returns the paired difference of a metric with bootstrap draws; empty if an outcome lacks it."""
    from spectra_nsa.metrics.bootstrap import difference_of

    if metric not in a.draws or metric not in b.draws:
        return {}
    first, second = (next(r for r in outcome.results if r.metric == metric) for outcome in (a, b))
    draws = a.draws[metric] - b.draws[metric]
    return {metric: difference_of(first.value - second.value, draws, 0.95, first.n)}


def split_undefined(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Returns the results with a finite value, and a note for each other one, because JSON has no NaN."""
    finite = [result for result in results if math.isfinite(result.value)]
    notes = [f"{r.metric} of {r.system} on {r.name} is undefined" for r in results if not math.isfinite(r.value)]
    return finite, notes
