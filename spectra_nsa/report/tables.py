"""Results as one table per dataset: systems in rows, metrics in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectra_nsa.core.results import Result
from spectra_nsa.report.format import number

# Metrics without a better or worse: no best value is marked.
_DESCRIPTIVE = {"positive_cosine", "negative_cosine"}
_LOWER_IS_BETTER = {"fpr95", "loss"} | {
    f"{side}_{figure}"
    for side in ("query", "document")
    for figure in ("latency_p50_ms", "latency_p95_ms", "cpu_ms", "memory_mb")
}
# Whole numbers.
_COUNTS = {"query_empty", "document_empty", "terms_in_half", "terms_used"}
# Tasks whose figures describe texts or vectors and are neither better nor worse.
_DESCRIPTIVE_TASKS = {"statistics", "sparsity", "token-importance"}
# Metrics that say little beside the others of their task.
_SECONDARY = {"mrr@10", "recall@5", "precision@1", "precision@10", "pair_accuracy", *_DESCRIPTIVE} | {
    *(f"{side}_{figure}" for side in ("query", "document") for figure in ("sparsity", "memory_mb", "active_p95")),
    "postings_per_query_p95",
    "terms_used",
    "postings_in_top_10",
}


@dataclass(frozen=True, kw_only=True)
class FigureCell:
    """One figure as shown: its text, its interval's text (``""`` without one), and whether it is the best."""

    text: str
    interval: str
    best: bool


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """The figures of all systems on one dataset.

    Attributes:
        title: such as ``"retrieval · cranfield"``.
        n: the number of units of the first metric.
        metrics: the columns.
        rows: (system, cells) with one cell per metric; ``None`` if the system lacks that figure.
    """

    title: str
    n: int
    metrics: Sequence[str]
    rows: Sequence[tuple[str, Sequence[FigureCell | None]]]


def result_tables(results: Sequence[Result]) -> list[ResultTable]:
    """Groups results by task and dataset, in order of appearance."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.task, result.name), []).append(result)
    return [_table(group) for group in groups.values()]


def main_metrics(results: Sequence[Result]) -> list[Result]:
    """Returns the results without those of metrics that say little beside the others of their task."""
    return [result for result in results if result.metric not in _SECONDARY]


def model_differences(differences: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the differences of the first system on each dataset: the model's, without those between baselines.

    Args:
        differences: entries of ``differences`` in a results document.
    """
    first: dict[tuple[str, str], str] = {}
    return [
        entry
        for entry in differences
        if entry["system"] == first.setdefault((entry["task"], entry["name"]), entry["system"])
    ]


@dataclass(frozen=True, kw_only=True)
class DifferenceCell:
    """One cell of a difference column.

    Attributes:
        text: the difference.
        interval: its interval.
        verdict: ``"up"`` if the whole interval is better than 0, ``"down"`` if it is worse, else ``""``.
    """

    text: str
    interval: str
    verdict: str


def difference_columns(
    table: ResultTable, differences: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, DifferenceCell]]:
    """Returns ``system − baseline`` → metric → cell for the model's differences that belong to a table."""
    columns: dict[str, dict[str, DifferenceCell]] = {}
    for entry in model_differences(differences):
        if f"{entry['task']} · {entry['name']}" != table.title:
            continue
        low, high = entry["ci"]
        verdict = _verdict(entry["metric"], low, high)
        cell = DifferenceCell(text=f"{entry['value']:+.3f}", interval=f"{low:+.3f} to {high:+.3f}", verdict=verdict)
        columns.setdefault(f"{entry['system']} − {entry['baseline']}", {})[entry["metric"]] = cell
    return columns


def _verdict(metric: str, low: float, high: float) -> str:
    if metric in _DESCRIPTIVE or low <= 0 <= high:
        return ""
    return "up" if (low > 0) != (metric in _LOWER_IS_BETTER) else "down"


def _table(group: Sequence[Result]) -> ResultTable:
    metrics = list(dict.fromkeys(result.metric for result in group))
    systems = list(dict.fromkeys(result.system for result in group))
    by_key = {(result.system, result.metric): result for result in group}
    best = {metric: _best(group, metric) for metric in metrics}
    rows = [(system, [_cell(by_key.get((system, metric)), best[metric]) for metric in metrics]) for system in systems]
    first = group[0]
    return ResultTable(title=f"{first.task} · {first.name}", n=first.n, metrics=metrics, rows=rows)


def _best(group: Sequence[Result], metric: str) -> float | None:
    """Returns the best value of a metric; ``None`` if it has fewer than two values or no better and worse."""
    values = [result.value for result in group if result.metric == metric]
    if len(values) < 2 or metric in _DESCRIPTIVE or group[0].task in _DESCRIPTIVE_TASKS:
        return None
    return min(values) if metric in _LOWER_IS_BETTER else max(values)


def _cell(result: Result | None, best: float | None) -> FigureCell | None:
    if result is None:
        return None
    low_high = "" if result.ci is None else f"{number(result.ci[0])}–{number(result.ci[1])}"
    text = f"{result.value:,.0f}" if result.metric in _COUNTS else number(result.value)
    return FigureCell(text=text, interval=low_high, best=best is not None and result.value == best)
