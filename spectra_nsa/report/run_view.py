"""A run at a glance, as something that rich can print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.report.format import duration, figure, sparkline, step_label
from spectra_nsa.report.references import CAUTION, references_for
from spectra_nsa.report.run_log import MetricsRow, series_of, thin_rows
from spectra_nsa.report.run_status import run_status

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_TREND_WIDTH = 24  # characters
WIDE = 120  # terminal columns from which two columns of figures fit
_SHOWN_WARNINGS = 4
_RATES = {"pairs_per_second": "pairs/s", "tokens_per_second": "tokens/s", "padding_waste": "padding",
          "matmul_share": "of matmul peak", "memory_gb": "memory GB", "gpu_memory_gb": "GPU memory GB"}  # fmt: skip
_SHARES = ("padding_waste", "matmul_share")


def run_view(
    rows: Sequence[MetricsRow],
    *,
    name: str,
    now: float,
    step: int | None = None,
    status: str | None = None,
    wide: bool = True,
) -> RenderableType:
    """Returns progress, warnings, losses, rates, health, dev metric and references of a run.

    Warnings come first because a small terminal cuts off the end.

    Args:
        rows: the rows of `metrics.jsonl`.
        name: the run's name.
        now: `time.time()`.
        step: the current step; ``None`` takes it from the last row.
        status: the run's status; ``None`` takes it from the rows.
        wide: whether two columns of figures fit side by side.
    """
    from rich.console import Group
    from rich.table import Table

    state = run_status(rows, now=now)
    state["step"], state["status"] = step if step is not None else state["step"], status or state["status"]
    rows = thin_rows(rows, 10 * _TREND_WIDTH)
    left = [_losses(rows, state), _optimizer(rows, state)]
    right = [_rates(rows, state), _health(state), _dev(rows, state)]
    body: Any
    if wide:
        body = Table.grid(padding=(0, 4))
        body.add_row(Group(*left), Group(*right))
    else:
        body = Group(*left, *right)
    return Group(_head(state, name), *_warnings(state), "", body)


def _head(state: Mapping[str, Any], name: str) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    steps, step = state["steps"], state["step"]
    grid = Table.grid(padding=(0, 1))
    text = Text.assemble((name, "bold"), f"  {state['status']}  step {step:,}", f" of {steps:,}" if steps else "")
    if state["epoch"] is not None:
        text.append(f"  epoch {state['epoch']:.2f}")
    if state["seconds_left"] is not None and state["status"] == "running":
        text.append(f"  {duration(state['seconds_left'])} left")
    grid.add_row(text, ProgressBar(total=steps, completed=step, width=_TREND_WIDTH) if steps else "")
    return grid


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """Returns a table of rows of label, figure and remark."""
    from rich.table import Table
    from rich.text import Text

    out = Table(
        title=title, box=None, title_justify="left", title_style="bold", show_header=False, padding=(0, 2, 0, 0)
    )
    for at, justify in enumerate(("left", "right", "left", "left")[: max((len(row) for row in rows), default=1)]):
        out.add_column(justify=justify, style="dim" if at > 1 else "", no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        out.add_row(*(Text(cell) for cell in row))
    return out


def _trend(rows: Sequence[MetricsRow], key: str) -> str:
    return sparkline([value for _, value in series_of(rows, key, most=_TREND_WIDTH)], _TREND_WIDTH)


def _losses(rows: Sequence[MetricsRow], state: Mapping[str, Any]) -> Table:
    shown = [("loss", figure(state["loss"]), _trend(rows, "loss"))]
    for name, value in state["terms"].items():
        norm = state["grad_norms"].get(name)
        shown.append((name, figure(value), _trend(rows, name) + (f"  ∇ {figure(norm)}" if norm is not None else "")))
    return _table("loss", shown)


def _optimizer(rows: Sequence[MetricsRow], state: Mapping[str, Any]) -> Table:
    keys = {"learning_rate": "learning rate", "temperature": "temperature", "grad_norm": "gradient norm"}
    shown = [(label, figure(state[key]), _trend(rows, key)) for key, label in keys.items() if state[key] is not None]
    return _table("optimizer", shown)


def _rates(rows: Sequence[MetricsRow], state: Mapping[str, Any]) -> Table:
    rates = {**state["throughput"], **state["memory"]}
    shown = [
        (label, figure(rates[key], share=key in _SHARES), _trend(rows, key))
        for key, label in _RATES.items()
        if key in rates
    ]
    return _table("speed and memory", shown)


def _health(state: Mapping[str, Any]) -> Table:
    first = state["health_first"]
    shown = [
        (name.replace("_", " "), figure(value), f"first {figure(first[name])}" if name in first else "")
        for name, value in state["health"].items()
    ]
    return _table("health", shown)


def _dev(rows: Sequence[MetricsRow], state: Mapping[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    dev = state["dev"]
    if not dev:
        return _table("dev metric", [("not measured yet",)])
    name = dev["metric"]
    shown = [
        (f"{name}, last", f"{dev['last']:.4f}", _trend(rows, f"eval_{name}")),
        (f"{name}, best", f"{dev['best']:.4f}", step_label(dev["best_step"])),
    ]
    if dev["kept_step"] is not None and dev["kept_step"] != dev["best_step"]:
        kept = "–" if dev["kept"] is None else f"{dev['kept']:.4f}"
        shown.append((f"{name}, kept", kept, f"{step_label(dev['kept_step'])}, in model/"))
    known = [(entry.model, f"{entry.value:.4g}", f"{entry.data}, {entry.source}") for entry in references_for(name)]
    if not known:
        return _table("dev metric", shown)
    return Group(_table("dev metric", shown), _table("known models", known), Text(CAUTION, style="dim"))


def _warnings(state: Mapping[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    warnings = state["warnings"]
    lines: list[RenderableType] = []
    if len(warnings) > _SHOWN_WARNINGS:
        lines.append(Text(f"{len(warnings) - _SHOWN_WARNINGS} earlier warnings", style="yellow"))
    for warning in warnings[-_SHOWN_WARNINGS:]:
        lines.append(Text(f"⚠ step {warning['step']:,}: {warning['message']} {warning['remedy']}", style="yellow"))
    return ["", *lines] if lines else []
