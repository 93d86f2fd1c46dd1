from __future__ import annotations

from spectra_nsa.report.format import duration, figure, number, sparkline, step_label


def test_sparkline() -> None:
    assert sparkline([0.0, 1.0, 2.0], 24) == "▁▅█" and sparkline([], 24) == "" and sparkline([1.0, 1.0], 24) == "▁▁"
    assert sparkline([0.0, float("nan"), 1.0], 24) == "▁ █" and len(sparkline(list(range(1000)), 24)) <= 24
    assert sparkline([0.0] * 99 + [5.0], 10)[-1] == "█"


def test_duration_and_step() -> None:
    assert (duration(5), duration(65), duration(3700)) == ("5 s", "1 min 05 s", "1 h 01 min")
    assert (step_label(0), step_label(1200)) == ("step 0 (before training)", "step 1,200")


def test_numbers() -> None:
    figures = [figure(None), figure(1e-5), figure(12345.6), figure(0.25, share=True)]
    assert figures == ["–", "1.00e-05", "12,346", "25.0%"]
    assert [number(x) for x in (0.8667, 0.0, -5.81, 214.4, 2000.0)] == ["0.867", "0.000", "-5.810", "214.4", "2,000"]
