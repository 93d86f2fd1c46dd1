"""A list of results as one table a data set: systems down, metrics across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spectra_nsa.core.results import Result

# Figures that describe rather than rank: no best one is marked.
_DESCRIPTIVE = {"positive_cosine", "negative_cosine"}
_LOWER_IS_BETTER = {"fpr95", "loss"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure as it is shown: `text`, its interval's text (``""`` without one) and whether it is the best."""

    text: str
    interval: str
    best: bool


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """All systems' figures on one data set.

    Attributes:
        title: such as ``"retrieval · cranfield"``.
        n: the units of the first metric.
        metrics: the columns.
        rows: (system, cells), a cell a metric; ``None`` where the system has no such figure.
    """

    title: str
    n: int
    metrics: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]


def tables(results: Sequence[Result]) -> list[ResultTable]:
    """Groups results by task and data set, in the order in which they come."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.task, result.name), []).append(result)
    return [_table(group) for group in groups.values()]


def _table(group: Sequence[Result]) -> ResultTable:
    metrics = list(dict.fromkeys(result.metric for result in group))
    systems = list(dict.fromkeys(result.system for result in group))
    found = {(result.system, result.metric): result for result in group}
    best = {metric: _best(group, metric) for metric in metrics}
    rows = [(system, [_cell(found.get((system, metric)), best[metric]) for metric in metrics]) for system in systems]
    first = group[0]
    return ResultTable(title=f"{first.task} · {first.name}", n=first.n, metrics=metrics, rows=rows)


def _best(group: Sequence[Result], metric: str) -> float | None:
    """The best value of a metric; ``None`` where there is nothing to choose."""
    values = [result.value for result in group if result.metric == metric]
    if len(values) < 2 or metric in _DESCRIPTIVE or group[0].task == "statistics":
        return None
    return min(values) if metric in _LOWER_IS_BETTER else max(values)


def _cell(result: Result | None, best: float | None) -> Cell | None:
    if result is None:
        return None
    low_high = "" if result.ci is None else f"{number(result.ci[0])}–{number(result.ci[1])}"
    return Cell(text=number(result.value), interval=low_high, best=best is not None and result.value == best)


def number(value: float) -> str:
    """Three decimals for what lies between −10 and 10, fewer digits for larger figures."""
    if value == int(value) and abs(value) >= 10:
        return f"{int(value):,}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
