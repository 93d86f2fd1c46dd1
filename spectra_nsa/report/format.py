"""Numbers, durations and trends as short texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def figure(value: float | None, *, share: bool = False) -> str:
    """Formats a number of any size in a few characters; ``None`` becomes a dash.

    Args:
        value: the number.
        share: whether it is a share, which becomes a percentage.
    """
    if value is None:
        return "–"
    if share:
        return f"{value:.1%}"
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        return f"{value:.2e}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def number(value: float) -> str:
    """Formats a metric: three decimals between −10 and 10, fewer digits for larger numbers."""
    if value == int(value) and abs(value) >= 10:
        return f"{int(value):,}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def escaped(text: str) -> str:
    """Returns a text as one line of Markdown in which no character has a meaning."""
    for sign in ("\\", "|", "*", "_", "<", "`"):
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


def duration(seconds: float) -> str:
    """Formats seconds as hours and minutes, as minutes and seconds, or as seconds."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


def step_label(step: int) -> str:
    """Formats a step; step 0 is the model before training."""
    return f"step {step:,}" if step else "step 0 (before training)"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draws values as a row of bars from the lowest to the highest value.

    Args:
        values: the values in order; NaN and infinity leave a gap.
        width: the largest number of bars; more values are thinned, and the last one is always drawn.

    Returns:
        the bars; ``""`` if no value is finite.
    """
    stride = max(1, -(-len(values) // width))
    shown = list(values[::-1][::stride][::-1])
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(_BARS[min(7, int((value - low) / span * 8))] if math.isfinite(value) else " " for value in shown)
