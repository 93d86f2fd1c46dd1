"""Small charts as inline SVG, without scripts.

The page's style sheet gives the classes ``s0``, ``s1``, … of the series their colors, for light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Point = tuple[float, float]
COLORS = 8  # classes s0 … s7 of the page
_WIDTH, _HEIGHT = 560, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 40  # margins; the left one fits a label such as −0.0025


@dataclass(frozen=True)
class _Scale:
    """Maps data coordinates to pixels. `x` and `y` are the ranges shown."""

    x: tuple[float, float]
    y: tuple[float, float]
    log_x: bool = False

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Returns the pixel of a point."""
        x, low, high = (math.log(value) if self.log_x else value for value in (x, *self.x))
        across = (x - low) / ((high - low) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round numbers inside [low, high], spaced by 1, 2 or 5 × 10ⁿ."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Returns the numbers 1, 2, 5 × 10ⁿ inside [low, high], or only the powers of ten if there are more than 9.

    Both limits must be above 0.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = [(factor, factor * 10.0**power) for power in powers for factor in (1, 2, 5)]
    inside = [(factor, value) for factor, value in numbers if low * 0.999 <= value <= high * 1.001]
    return [value for factor, value in inside if factor == 1 or len(inside) <= 9]


def line_chart(series: Mapping[str, Sequence[Point]], *, x_label: str, y_label: str, log_x: bool = False) -> str:
    """Draws lines through points. Points show their values on hover, and the last one is marked.

    Args:
        series: name → (x, y) points in the order of x; points that are not finite are skipped.
        x_label: the label of the horizontal axis.
        y_label: the label for screen readers.
        log_x: whether the horizontal axis is logarithmic, which skips points at 0 or below.

    Returns:
        the SVG; ``""`` if there are no points.
    """
    kept = {name: [point for point in _finite(points) if point[0] > 0 or not log_x] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    everything = [point for points in kept.values() for point in points]
    scale = _Scale(_span(x for x, _ in everything), _padded(_span(y for _, y in everything)), log_x=log_x)
    parts = [_axes(scale, x_label)]
    for number, points in enumerate(kept.values()):
        pixels = [scale.pixel(*point) for point in points]
        path = "M" + " L".join(f"{x} {y}" for x, y in pixels)
        parts.append(f'<path class="line s{number % COLORS}" d="{path}"/>')
        for point, (x, y) in zip(points, pixels, strict=True):
            mark = "dot" if point == points[-1] or len(points) < 20 else "dot quiet"
            title = f"<title>{_short(point[0])}: {_short(point[1])}</title>"
            parts.append(f'<circle class="{mark} s{number % COLORS}" cx="{x}" cy="{y}" r="2.5">{title}</circle>')
    return _svg(parts, f"{y_label} by {x_label}")


def histogram(groups: Mapping[str, Sequence[float]], *, x_label: str, bins: int = 40) -> str:
    """Draws overlaid histograms on common bins, each as shares of its group.

    Args:
        groups: name → values; values that are not finite are skipped.
        x_label: the label of the horizontal axis.
        bins: the number of bins.

    Returns:
        the SVG; ``""`` if there are no values.
    """
    kept = {name: [value for value in values if math.isfinite(value)] for name, values in groups.items()}
    kept = {name: values for name, values in kept.items() if values}
    if not kept:
        return ""
    low, high = _padded(_span(value for values in kept.values() for value in values), 0.0)
    width = (high - low) / bins
    shares = {name: _shares(values, low, width, bins) for name, values in kept.items()}
    scale = _Scale((low, high), (0.0, max(max(bars) for bars in shares.values()) * 1.05))
    parts = [_axes(scale, x_label, percent=True)]
    for number, bars in enumerate(shares.values()):
        steps = [scale.pixel(low, 0)]
        for at, share in enumerate(bars):
            steps += [scale.pixel(low + at * width, share), scale.pixel(low + (at + 1) * width, share)]
        steps.append(scale.pixel(high, 0))
        path = "M" + " L".join(f"{x} {y}" for x, y in steps) + " Z"
        parts.append(f'<path class="area s{number % COLORS}" d="{path}"/>')
    return _svg(parts, f"distribution of {x_label}")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A row of a forest plot: a value, its interval, and whether it is highlighted."""

    name: str
    value: float
    ci: tuple[float, float]
    marked: bool = False


def forest(estimates: Sequence[Estimate], *, x_label: str) -> str:
    """Draws values with their intervals, one per row, around a line at zero. Highlighted values have a filled dot.

    Args:
        estimates: from top to bottom; estimates that are not finite are skipped.
        x_label: the label of the horizontal axis.

    Returns:
        the SVG; ``""`` if there are no estimates.
    """
    kept = [estimate for estimate in estimates if all(map(math.isfinite, (estimate.value, *estimate.ci)))]
    if not kept:
        return ""
    row, left = 24, 8 + 7 * max(len(estimate.name) for estimate in kept)
    bottom = _TOP + row * len(kept)
    low, high = _padded(_span([0.0, *(end for estimate in kept for end in estimate.ci)]))

    def across(value: float) -> float:
        return round(left + (value - low) / (high - low) * (_WIDTH - left - _RIGHT), 1)

    parts = []
    for value in ticks(low, high, count=5):
        x, kind = across(value), "axis" if value == 0 else "grid"
        parts.append(f'<path class="{kind}" d="M{x} {_TOP} V{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{_short(value)}</text>')
    for at, estimate in enumerate(kept):
        y, value, (start, end) = _TOP + row * (at + 0.5), estimate.value, estimate.ci
        title = f"<title>{escape(estimate.name)}: {_short(value)} ({_short(start)} to {_short(end)})</title>"
        dot = f'class="{"dot s1" if estimate.marked else "line s0"}" cx="{across(value)}" cy="{y}" r="4"'
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(estimate.name)}</text>')
        parts.append(f'<path class="line s{int(estimate.marked)}" d="M{across(start)} {y} H{across(end)}"/>')
        parts.append(f"<circle {dot}>{title}</circle>")
    middle = (left + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(x_label)}</text>')
    return _svg(parts, x_label, height=bottom + _BOTTOM)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of `bars`.

    Attributes:
        name: the text beside it.
        value: its length; negative values are drawn as 0.
        marked: whether it has the second color.
        title: what is shown on hover besides name and value.
    """

    name: str
    value: float
    marked: bool = False
    title: str = ""


def bars(rows: Sequence[Bar], *, x_label: str) -> str:
    """Draws horizontal bars from zero, one per row, with their values at the end.

    Args:
        rows: from top to bottom; values that are not finite are skipped.
        x_label: the label below the bars.

    Returns:
        the SVG; ``""`` if there are no bars.
    """
    kept = [bar for bar in rows if math.isfinite(bar.value)]
    if not kept:
        return ""
    row, left = 20, min(_WIDTH // 2, 16 + 8 * max(len(bar.name) for bar in kept))
    longest = max(max(bar.value for bar in kept), 0.0) or 1.0
    parts = []
    for at, bar in enumerate(kept):
        y, width = _TOP + row * at, max(bar.value, 0.0) / longest * (_WIDTH - left - _RIGHT - 48)
        hover = f"<title>{escape(bar.name)}: {_short(bar.value)}{escape(bar.title and f' {bar.title}')}</title>"
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(bar.name)}</text>')
        box = f'x="{left}" y="{y + 2}" width="{width:.1f}" height="{row - 6}" rx="2"'
        parts.append(f'<rect class="bar s{int(bar.marked)}" {box}>{hover}</rect>')
        parts.append(f'<text class="tick" x="{left + width + 6:.1f}" y="{y + 12}">{_short(bar.value)}</text>')
    bottom = _TOP + row * len(kept)
    parts.append(f'<text class="tick" x="{left}" y="{bottom + 16}">{escape(x_label)}</text>')
    return _svg(parts, x_label, height=bottom + 24)


def _svg(parts: Sequence[str], label: str, *, height: float = _HEIGHT) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _axes(scale: _Scale, x_label: str, *, percent: bool = False) -> str:
    parts = []
    left, bottom = scale.pixel(scale.x[0], scale.y[0])
    right, _ = scale.pixel(scale.x[1], scale.y[0])
    for value in ticks(*scale.y, count=4):
        _, y = scale.pixel(scale.x[0], value)
        label = f"{value * 100:g} %" if percent else _short(value)
        parts.append(f'<path class="grid" d="M{left} {y} H{right}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 3.5}" text-anchor="end">{label}</text>')
    for value in decades(*scale.x) if scale.log_x else ticks(*scale.x, count=6):
        x, _ = scale.pixel(value, scale.y[0])
        label = f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{_short(value)}</text>'
        parts.append(label)
    middle = (left + right) / 2
    parts.append(f'<path class="axis" d="M{left} {bottom} H{right}"/>')
    parts.append(f'<text class="tick" x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _span(values: Iterable[float]) -> tuple[float, float]:
    numbers = list(values)
    return min(numbers), max(numbers)


def _padded(span: tuple[float, float], share: float = 0.06) -> tuple[float, float]:
    low, high = span
    margin = (high - low) * share if high > low else abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _shares(values: Sequence[float], low: float, width: float, bins: int) -> list[float]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / width))] += 1
    return [count / len(values) for count in counts]


def _short(value: float) -> str:
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"
