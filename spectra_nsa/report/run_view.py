"""A run at a glance, as something that rich can print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.report.format import duration, figure, sparkline, step_label
from spectra_nsa.report.labels import label
from spectra_nsa.report.run_log import (
    FULLEST,
    GATE,
    HEALTH,
    MEMORY,
    SET_LOSS,
    SHARES,
    THROUGHPUT,
    MetricsRow,
    embedding_term,
    expert_layers,
    series_of,
    thin_rows,
)
from spectra_nsa.report.run_status import run_status

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_TREND_WIDTH = 16  # characters
WIDE = 120  # terminal columns from which two columns of details fit
_SHOWN_WARNINGS = 4
_STATUS = {"lost": "not responding"}  # status → the words for it
_SPEED = ("pairs_per_second", *MEMORY)  # what the summary shows of speed and memory
_HEALTH = ("rank_share", "mean_cosine")  # what it shows of the vectors' health, besides what is wrong
_FAULTS = ("non_finite", "near_duplicates", "bits_dead")  # shown if not 0


def run_view(
    rows: Sequence[MetricsRow],
    *,
    name: str,
    now: float,
    step: int | None = None,
    status: str | None = None,
    details: bool = False,
    wide: bool = True,
) -> RenderableType:
    """Returns progress, warnings and the main figures of a run.

    Warnings come first because a small terminal cuts off the end.

    Args:
        rows: the rows of `metrics.jsonl`.
        name: the run's name.
        now: `time.time()`.
        step: the current step; ``None`` takes it from the last row.
        status: the run's status; ``None`` takes it from the rows.
        details: whether every loss term, rate and health figure follows.
        wide: whether two columns of details fit side by side.
    """
    from rich.console import Group

    state = run_status(rows, now=now)
    state["step"], state["status"] = step if step is not None else state["step"], status or state["status"]
    rows = thin_rows(rows, 10 * _TREND_WIDTH)
    parts = [_head(state, name), *_warnings(state), "", _summary(rows, state)]
    return Group(*parts, "", _details(rows, state, wide)) if details else Group(*parts)


def _head(state: Mapping[str, Any], name: str) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    steps, step, status = state["steps"], state["step"], state["status"]
    grid = Table.grid(padding=(0, 1))
    text = Text.assemble((name, "bold"), f"  {_STATUS.get(status, status)}")
    text.append(f"  step {step:,}" + (f" of {steps:,}" if steps else ""))
    if state["epoch"] is not None:
        text.append(f"  epoch {state['epoch']:.2f}")
    if state["seconds_left"] is not None and status == "running":
        text.append(f"  {duration(state['seconds_left'])} left")
    grid.add_row(text, ProgressBar(total=steps, completed=step, width=_TREND_WIDTH) if steps else "")
    return grid


def _summary(rows: Sequence[MetricsRow], state: Mapping[str, Any]) -> Table:
    """Returns the figures that matter most: dev metric, loss, speed, and signs of collapse."""
    shown = _dev(rows, state["dev"])
    first = next((row["loss"] for row in rows if "loss" in row), None)
    semantic, heads = embedding_term(state["terms"]), ""
    if semantic is not None and len(state["terms"]) > 1:
        first_semantic = next(row[semantic] for row in rows if semantic in row)
        shown.append(_figure_row(rows, semantic, state["terms"][semantic], f"first {figure(first_semantic)}"))
        heads = "; all terms"
    shown.append(_figure_row(rows, "loss", state["loss"], f"first {figure(first)}{heads}"))
    for name, value in state["set_losses"].items():
        shown.append(_figure_row(rows, f"{SET_LOSS}{name}", value, "its batches only"))
    shown += _fullest_expert(rows)
    rates = {**state["throughput"], **state["memory"]}
    shown += [_figure_row(rows, key, rates[key]) for key in _SPEED if key in rates]
    health, start = state["health"], state["health_first"]
    for key in (*(key for key in _HEALTH if key in health), *(key for key in _FAULTS if health.get(key))):
        shown.append(_figure_row(rows, f"{HEALTH}{key}", health[key], f"first {figure(start.get(key))}"))
    return _table("", shown)


def _fullest_expert(rows: Sequence[MetricsRow]) -> list[tuple[str, ...]]:
    """Returns a row for the layer whose load is the least even, if there are experts."""
    layers = expert_layers(rows)
    last = next((row for row in reversed(rows) if any(f"{FULLEST}{layer}" in row for layer in layers)), {})
    if not last:
        return []
    worst = max(layers, key=lambda layer: last.get(f"{FULLEST}{layer}", 0.0))
    value = last[f"{FULLEST}{worst}"]
    remark = f"over an equal share, in layer {worst}"
    return [("fullest expert", f"+{figure(value, share=True)}", _trend(rows, f"{FULLEST}{worst}"), remark)]


def _experts(rows: Sequence[MetricsRow]) -> list[tuple[str, ...]]:
    """Returns a row for each layer with experts: the fullest one, the trend, and the entropy of the gate."""
    shown: list[tuple[str, ...]] = []
    for layer in expert_layers(rows):
        key = f"{FULLEST}{layer}"
        last = next((row for row in reversed(rows) if key in row), {})
        entropy = f"gate entropy {figure(last.get(f'{GATE}{layer}'))}"
        shown.append((f"layer {layer}", f"+{figure(last.get(key), share=True)}", _trend(rows, key), entropy))
    return shown


def _dev(rows: Sequence[MetricsRow], dev: Mapping[str, Any]) -> list[tuple[str, ...]]:
    if not dev:
        return [("dev metric", "–", "", "not measured yet")]
    name, step = dev["metric"], dev["best_step"]
    best = f"best {dev['best']:.4f} " + (f"at {step_label(step)}" if step else "before training")
    points = series_of(rows, f"eval_{name}", most=_TREND_WIDTH)
    shown: list[tuple[str, ...]] = [(name, f"{dev['last']:.4f}", _trend(rows, f"eval_{name}"), best)]
    if len(points) > 1 and points[0][0] == 0:
        shown.append(("  before training", f"{points[0][1]:.4f}", ""))
    if dev["kept_step"] is not None and dev["kept_step"] != dev["best_step"]:
        kept = "–" if dev["kept"] is None else f"{dev['kept']:.4f}"
        shown.append(("  in model/", kept, "", f"from {step_label(dev['kept_step'])}"))
    return shown


def _details(rows: Sequence[MetricsRow], state: Mapping[str, Any], wide: bool) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    norms, rates, first = state["grad_norms"], {**state["throughput"], **state["memory"]}, state["health_first"]
    terms = [
        _figure_row(rows, name, value, f"gradient {figure(norms[name])}" if name in norms else "")
        for name, value in state["terms"].items()
    ]
    optimizer = [
        _figure_row(rows, key, state[key])
        for key in ("learning_rate", "temperature", "grad_norm")
        if state[key] is not None
    ]
    speed = [_figure_row(rows, key, rates[key]) for key in (*THROUGHPUT, *MEMORY) if key in rates]
    health = [
        (label(f"{HEALTH}{name}"), figure(value), f"first {figure(first[name])}" if name in first else "")
        for name, value in state["health"].items()
    ]
    left: list[RenderableType] = [_table("Loss terms", terms), "", _table("Optimizer", optimizer)]
    right: list[RenderableType] = [_table("Speed and memory", speed), "", _table("Health of the vectors", health)]
    if experts := _experts(rows):
        right += ["", _table("Fullest expert", experts)]
    if not wide:
        return Group(*left, "", *right)
    body = Table.grid(padding=(0, 4))
    body.add_row(Group(*left), Group(*right))
    return body


def _figure_row(rows: Sequence[MetricsRow], key: str, value: float | None, remark: str = "") -> tuple[str, ...]:
    return label(key), figure(value, share=key in SHARES), _trend(rows, key), remark


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """Returns a table of rows of label, figure, trend and remark."""
    from rich.table import Table
    from rich.text import Text

    out = Table(
        title=title or None, box=None, title_justify="left", title_style="bold", show_header=False, padding=(0, 2, 0, 0)
    )
    for at, justify in enumerate(("left", "right", "left", "left")[: max((len(row) for row in rows), default=1)]):
        # On a narrow terminal only trend and remark become shorter.
        out.add_column(justify=justify, style="dim" if at > 1 else "", no_wrap=at < 2)  # type: ignore[arg-type]
    for row in rows:
        out.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    return out


def _trend(rows: Sequence[MetricsRow], key: str) -> str:
    return sparkline([value for _, value in series_of(rows, key, most=_TREND_WIDTH)], _TREND_WIDTH)


def _warnings(state: Mapping[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    warnings = state["warnings"]
    lines: list[RenderableType] = []
    if len(warnings) > _SHOWN_WARNINGS:
        lines.append(Text(f"{len(warnings) - _SHOWN_WARNINGS} earlier warnings", style="yellow"))
    for warning in warnings[-_SHOWN_WARNINGS:]:
        lines.append(Text(f"⚠ step {warning['step']:,}: {warning['message']} {warning['remedy']}", style="yellow"))
    return ["", *lines] if lines else []
