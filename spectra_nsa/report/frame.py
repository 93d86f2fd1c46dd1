"""One frame of a watched run, for the terminal: what has been logged in, something rich can print out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.report.references import CAUTION, references_for
from spectra_nsa.report.runlog import Row, at_step, series_of, standing, thinned

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24
WIDE = 120  # columns of a terminal in which two columns of figures fit
_SHOWN_WARNINGS = 4
_RATES = {"pairs_per_second": "pairs/s", "tokens_per_second": "tokens/s", "padding_waste": "padding",
          "matmul_share": "of matmul peak", "memory_gb": "memory GB", "gpu_memory_gb": "GPU memory GB"}  # fmt: skip
_SHARES = ("padding_waste", "matmul_share")


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """A row of bars, lowest to highest value; values that are not finite leave a gap, ``""`` for none at all."""
    import math

    stride = max(1, -(-len(values) // width))
    shown = list(values[::-1][::stride][::-1])  # the last one is always among them
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(_BARS[min(7, int((value - low) / span * 8))] if math.isfinite(value) else " " for value in shown)


def run_frame(
    rows: Sequence[Row], *, name: str, now: float, step: int | None = None, status: str | None = None, wide: bool = True
) -> RenderableType:
    """A run at a glance: progress, warnings (a low terminal cuts the end off), losses, rates, health, dev metric,
    references.

    Args:
        rows: of `metrics.jsonl`.
        name: the run's.
        now: `time.time()`.
        step: the step, where it is known better than from the last row; ``None`` takes that.
        status: the same for the status.
        wide: whether two columns fit side by side.
    """
    from rich.console import Group
    from rich.table import Table

    state = standing(rows, now=now)
    state["step"], state["status"] = step if step is not None else state["step"], status or state["status"]
    rows = thinned(rows, 10 * _WIDTH)
    left = [_losses(rows, state), _optimiser(rows, state)]
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
    grid.add_row(text, ProgressBar(total=steps, completed=step, width=_WIDTH) if steps else "")
    return grid


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds, or seconds."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


def figure(value: float | None, *, share: bool = False) -> str:
    """A number of any size in a few characters; a dash where there is none."""
    if value is None:
        return "–"
    if share:
        return f"{value:.1%}"
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        return f"{value:.2e}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """Label, figure, and what stands beside it."""
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


def _trend(rows: Sequence[Row], key: str) -> str:
    return sparkline([value for _, value in series_of(rows, key, most=_WIDTH)])


def _losses(rows: Sequence[Row], state: Mapping[str, Any]) -> Table:
    shown = [("loss", figure(state["loss"]), _trend(rows, "loss"))]
    for name, value in state["terms"].items():
        norm = state["grad_norms"].get(name)
        shown.append((name, figure(value), _trend(rows, name) + (f"  ∇ {figure(norm)}" if norm is not None else "")))
    return _table("loss", shown)


def _optimiser(rows: Sequence[Row], state: Mapping[str, Any]) -> Table:
    keys = {"learning_rate": "learning rate", "temperature": "temperature", "grad_norm": "gradient norm"}
    shown = [(label, figure(state[key]), _trend(rows, key)) for key, label in keys.items() if state[key] is not None]
    return _table("optimiser", shown)


def _rates(rows: Sequence[Row], state: Mapping[str, Any]) -> Table:
    found = {**state["throughput"], **state["memory"]}
    shown = [
        (label, figure(found[key], share=key in _SHARES), _trend(rows, key))
        for key, label in _RATES.items()
        if key in found
    ]
    return _table("speed and memory", shown)


def _health(state: Mapping[str, Any]) -> Table:
    first = state["health_first"]
    shown = [
        (name.replace("_", " "), figure(value), f"first {figure(first[name])}" if name in first else "")
        for name, value in state["health"].items()
    ]
    return _table("health", shown)


def _dev(rows: Sequence[Row], state: Mapping[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    dev = state["dev"]
    if not dev:
        return _table("dev metric", [("none yet",)])
    name = dev["metric"]
    shown = [
        (f"{name}, last", f"{dev['last']:.4f}", _trend(rows, f"eval_{name}")),
        (f"{name}, best", f"{dev['best']:.4f}", at_step(dev["best_step"])),
    ]
    if dev["kept_step"] is not None and dev["kept_step"] != dev["best_step"]:
        kept = "–" if dev["kept"] is None else f"{dev['kept']:.4f}"
        shown.append((f"{name}, kept", kept, f"{at_step(dev['kept_step'])}, in model/"))
    known = [(one.model, f"{one.value:.4g}", f"{one.data}, {one.source}") for one in references_for(name)]
    if not known:
        return _table("dev metric", shown)
    return Group(_table("dev metric", shown), _table("known models", known), Text(CAUTION, style="dim"))


def _warnings(state: Mapping[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    found = state["warnings"]
    lines: list[RenderableType] = []
    if len(found) > _SHOWN_WARNINGS:
        lines.append(Text(f"{len(found) - _SHOWN_WARNINGS} earlier warnings", style="yellow"))
    for one in found[-_SHOWN_WARNINGS:]:
        lines.append(Text(f"⚠ step {one['step']:,}: {one['message']} {one['remedy']}", style="yellow"))
    return ["", *lines] if lines else []
