"""Charts of experts as inline SVG: heat maps, curves with a band of chance, and routes through layers."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

_WIDTH = 560
_CHARACTER = 8.6  # pixels of a letter in a label
_LONGEST = 24  # letters of a label


def heat_map(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    label: str,
    full: float | None = None,
    muted: Sequence[Sequence[bool]] | None = None,
) -> str:
    """Draws a table of numbers as colors: one color above 0, another below, stronger with the distance.

    Args:
        values: by row and column.
        rows: the names on the left.
        columns: the names on top.
        label: for screen readers.
        full: the distance with the full color; ``None`` for the largest one.
        muted: cells in gray, such as those that chance explains; ``None`` for none.
    """
    if not values or not columns:
        return ""
    shown = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in rows]
    left = 12 + _CHARACTER * max(len(name) for name in shown)
    wide = min(64.0, (_WIDTH - left - 4) / len(columns))
    high, top = 24, 22
    largest = full or max((abs(value) for row in values for value in row), default=0.0) or 1.0
    decimals = 2 if largest >= 0.1 else 3
    parts = []
    for at, name in enumerate(columns):
        x = left + wide * (at + 0.5)
        parts.append(f'<text class="tick" x="{x:.1f}" y="15" text-anchor="middle">{escape(name)}</text>')
    for i, (name, row) in enumerate(zip(rows, values, strict=True)):
        y = top + high * i
        parts.append(f'<text class="tick" x="{left - 8:.1f}" y="{y + 16}" text-anchor="end">{escape(shown[i])}</text>')
        for j, value in enumerate(row):
            gray = muted is not None and muted[i][j]
            color = "s5" if gray else "s0" if value >= 0 else "s1"
            strength = 0.08 if gray else round(min(1.0, abs(value) / largest) * 0.85, 3)
            box = f'x="{left + wide * j:.1f}" y="{y}" width="{wide - 2:.1f}" height="{high - 2}" rx="2"'
            hover = f"<title>{escape(name)}, {escape(columns[j])}: {short(value)}</title>"
            parts.append(f'<rect class="cell {color}" fill-opacity="{strength}" {box}>{hover}</rect>')
            if wide >= 34:
                text = f'x="{left + wide * (j + 0.5) - 1:.1f}" y="{y + 15}" text-anchor="middle"'
                shown_value = "–" if value != value else f"{round(value, decimals) + 0.0:.{decimals}f}"
                parts.append(f'<text class="tick cell-text" {text}>{shown_value}</text>')
    return _svg(parts, top + high * len(rows) + 4, label)


def band_chart(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]], layers: Sequence[int], *, label: str
) -> str:
    """Draws a curve over layers for each figure, above a band that reaches to the 95 % quantile of chance.

    Args:
        curves: name, values and 95 % quantiles of chance, one for each layer.
        layers: their numbers.
        label: for screen readers.
    """
    left, right, top, bottom, height = 44, 12, 10, 30, 220
    most = max([0.05, *(value for _, values, null in curves for value in (*values, *null))]) * 1.05
    step = (_WIDTH - left - right) / max(1, len(layers) - 1)

    def point(at: int, value: float) -> tuple[float, float]:
        return round(left + step * at, 1), round(height - bottom - max(0.0, value) / most * (height - top - bottom), 1)

    parts = []
    for tick in (0.0, most / 2.1, most / 1.05):
        y = point(0, tick)[1]
        parts.append(f'<path class="grid" d="M{left} {y} H{_WIDTH - right}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4}" text-anchor="end">{short(tick)}</text>')
    for at, layer in enumerate(layers):
        x = point(at, 0)[0]
        parts.append(f'<text class="tick" x="{x}" y="{height - 10}" text-anchor="middle">{layer}</text>')
    for number, (name, values, null) in enumerate(curves):
        edge = " L".join(f"{x} {y}" for x, y in (point(at, value) for at, value in enumerate(null)))
        base = point(len(layers) - 1, 0)
        parts.append(f'<path class="band s{number % 8}" d="M{left} {base[1]} L{edge} L{base[0]} {base[1]} Z"/>')
        points = [point(at, value) for at, value in enumerate(values)]
        line = " L".join(f"{x} {y}" for x, y in points)
        parts.append(f'<path class="line s{number % 8}" d="M{line}"/>')
        for layer, value, (x, y) in zip(layers, values, points, strict=True):
            hover = f"<title>{escape(name)}, layer {layer}: {short(value)}</title>"
            parts.append(f'<circle class="dot s{number % 8}" cx="{x}" cy="{y}" r="3">{hover}</circle>')
    return _svg(parts, height, label)


def routes_chart(paths: Sequence[tuple[Sequence[int], float]], layers: Sequence[int], experts: int) -> str:
    """Draws paths through the experts of the layers, the thicker the more choices take them.

    Args:
        paths: the experts of a path, and its share.
        layers: their numbers, from left to right.
        experts: E, from top to bottom.
    """
    if not paths or len(layers) < 2:
        return ""
    left, top, row = 30, 24, max(14.0, min(26.0, 320 / experts))
    step = (_WIDTH - left - 24) / (len(layers) - 1)
    largest = max(share for _, share in paths)
    parts = []
    for at, layer in enumerate(layers):
        x = left + step * at
        parts.append(f'<text class="tick" x="{x:.1f}" y="14" text-anchor="middle">{layer}</text>')
        parts += [f'<circle class="grid" cx="{x:.1f}" cy="{top + row * (e + 0.5):.1f}" r="2"/>' for e in range(experts)]
    for expert in range(experts):
        parts.append(f'<text class="tick" x="4" y="{top + row * (expert + 0.5) + 4:.1f}">{expert}</text>')
    for path, share in paths:
        places = [(left + step * at, top + row * (expert + 0.5)) for at, expert in enumerate(path)]
        drawn = f"M{places[0][0]:.1f} {places[0][1]:.1f}"
        for (x0, y0), (x1, y1) in pairwise(places):
            middle = (x0 + x1) / 2
            drawn += f" C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
        hover = f"<title>{' → '.join(map(str, path))}: {share:.1%}</title>"
        width = round(1 + 9 * share / largest, 1)
        parts.append(f'<path class="route s{path[0] % 8}" stroke-width="{width}" d="{drawn}">{hover}</path>')
    return _svg(parts, top + row * experts + 8, "routes through the layers")


def clustered(similarity: Sequence[Sequence[float]]) -> list[int]:
    """Returns an order in which similar experts are neighbors: each next one is the most similar to the last."""
    left = set(range(len(similarity)))
    order = [0] if left else []
    left -= {0}
    while left:
        last = order[-1]
        order.append(max(left, key=lambda other: (similarity[last][other] + similarity[other][last], -other)))
        left.remove(order[-1])
    return order


def short(value: float) -> str:
    """Returns a number in few characters."""
    if value != value:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}" if abs(value) < 0.01 and value else f"{value:.2f}"


def _svg(parts: Sequence[str], height: float, label: str) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">{body}</svg>'
