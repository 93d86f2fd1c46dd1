from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.report.svg import Bar, Estimate, bars, decades, forest, histogram, line_chart, ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    high = low + width
    got = ticks(low, high)
    assert len(got) <= 7
    slack = 1e-6 * width + 1e-12 * max(abs(low), abs(high))  # a float has 16 digits
    assert all(low - slack <= tick <= high + slack for tick in got)


def test_ticks_by_hand() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(3, 3) == [3]


def test_a_line_spans_the_axes() -> None:
    svg = line_chart({"loss": [(0, 0.0), (100, 1.0)]}, x_label="step", y_label="loss")
    ElementTree.fromstring(svg)
    path = re.search(r'class="line s0" d="M([\d.]+) ([\d.]+) L([\d.]+) ([\d.]+)"', svg)
    assert path is not None
    x0, y0, x1, y1 = map(float, path.groups())
    assert (x0, x1) == (64, 544) and y0 > y1


def test_values_that_are_not_finite_are_skipped() -> None:
    assert line_chart({"loss": [(0, math.nan)]}, x_label="step", y_label="loss") == ""
    assert histogram({"a": []}, x_label="cosine") == ""
    for svg in (
        line_chart({"a": [(0, 1.0), (1, math.inf), (2, 1.0)]}, x_label="step", y_label="x"),
        histogram({"a": [0.5], "b": [0.5, math.nan]}, x_label="cosine"),
    ):
        ElementTree.fromstring(svg)
        assert "nan" not in svg and "inf" not in svg


def test_labels_are_escaped() -> None:
    ElementTree.fromstring(histogram({"a": [1.0, 2.0]}, x_label="<cos> & co"))


def test_forest_puts_values_on_their_side_of_zero() -> None:
    svg = forest(
        [
            Estimate(name="a < b", value=0.02, ci=(0.01, 0.03), marked=True),
            Estimate(name="worse", value=-0.01, ci=(-0.03, 0.01)),
            Estimate(name="broken", value=float("nan"), ci=(0.0, 1.0)),
        ],
        x_label="with − without",
    )
    root = ElementTree.fromstring(svg)
    dots = [element for element in root if element.tag == "circle"]
    zero = float(re.findall(r'class="axis" d="M([\d.]+)', svg)[0])
    assert [float(dot.attrib["cx"]) > zero for dot in dots] == [True, False]
    assert ["dot" in dot.attrib["class"] for dot in dots] == [True, False]
    assert "a &lt; b" in svg and "broken" not in svg
    assert forest([], x_label="") == ""


def test_a_logarithmic_axis_maps_equal_ratios_to_equal_distances() -> None:
    svg = line_chart({"a": [(0, 9.0), (10, 0.0), (100, 0.5), (1000, 1.0)]}, x_label="C", y_label="recall", log_x=True)
    ElementTree.fromstring(svg)
    x = [float(value) for value in re.findall(r'cx="([\d.]+)"', svg)]
    assert len(x) == 3 and x[1] - x[0] == x[2] - x[1]  # the point at 0 is skipped


def test_logarithmic_ticks_by_hand() -> None:
    assert decades(8, 1536) == [10, 20, 50, 100, 200, 500, 1000]
    assert decades(1, 1e5) == [1, 10, 100, 1000, 10_000, 100_000]


def test_bars_are_as_long_as_their_values() -> None:
    rows = [
        Bar(name="a<b", value=2.0),
        Bar(name="c", value=1.0, marked=True, title="from d"),
        Bar(name="x", value=math.nan),
    ]
    svg = bars(rows, x_label="weight")
    ElementTree.fromstring(svg)
    first, second = (float(width) for width in re.findall(r'class="bar[^>]* width="([\d.]+)"', svg))
    assert first == 2 * second and 'class="bar s1"' in svg and "<title>c: 1 from d</title>" in svg
    assert bars([], x_label="weight") == ""
    assert 'width="0.0"' in bars([Bar(name="a", value=0)], x_label="weight")
