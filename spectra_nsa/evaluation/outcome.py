"""What a task hands back: figures, the values behind them, and examples to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from spectra_nsa.core.results import Result

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.metrics.bootstrap import Difference


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One found document: its id, text and score, and whether it is a wanted one."""

    id: str
    text: str
    score: float
    relevant: bool


@dataclass(frozen=True, kw_only=True)
class QueryHits:
    """What one query found.

    Attributes:
        id: the query's id.
        query: its text.
        wanted: texts of the relevant documents.
        found: the ten best.
        rank: of the first relevant document, from 1; ``None`` when it is not among the first hundred.
    """

    id: str
    query: str
    wanted: Sequence[str]
    found: Sequence[Hit]
    rank: int | None


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """One system on one task.

    Attributes:
        results: the figures.
        per_unit: metric → (n,) the values whose mean the figure is, one a query, pair or text, in the task's order.
            For scored pairs: ``cosine`` and ``gold``.
        hits: for tasks with retrieval, one entry a judged query.
        distributions: name → values worth a histogram, such as the cosines of positives and of negatives.
        notes: what a reader must know: a figure that is undefined and why, texts that were left out.
    """

    results: list[Result]
    per_unit: Mapping[str, np.ndarray] = field(default_factory=dict)
    hits: Sequence[QueryHits] = ()
    distributions: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: Sequence[str] = ()


class Task(Protocol):
    """Something to measure systems on."""

    kind: str
    name: str

    def run(self, system: System) -> TaskOutcome:
        """Measures one system.

        Raises:
            UnsuitableSystem: this kind of system has no such figure (BM25 has no cosine).
        """
        ...

    def compare(self, a: TaskOutcome, b: TaskOutcome) -> dict[str, Difference]:
        """metric → a − b with its paired interval; empty where the task has no units to pair."""
        ...


class UnsuitableSystem(Exception):
    """The task needs embeddings and the system has none: it is left out of that table with a note."""


def mean_result(*, kind: str, name: str, system: str, metric: str, values: np.ndarray) -> Result:
    """The mean of per-unit values with its bootstrap interval."""
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
    """The paired differences of every metric that both outcomes hold per-unit values of."""
    from spectra_nsa.metrics.bootstrap import paired_difference

    shared = [metric for metric in a.per_unit if metric in b.per_unit]
    return {metric: paired_difference(a.per_unit[metric], b.per_unit[metric]) for metric in shared}


def defined(results: Sequence[Result]) -> tuple[list[Result], list[str]]:
    """Splits off results without a finite value: JSON has no NaN, so each becomes a note instead."""
    kept = [result for result in results if math.isfinite(result.value)]
    lost = [f"{r.metric} of {r.system} on {r.name} is undefined" for r in results if not math.isfinite(r.value)]
    return kept, lost
