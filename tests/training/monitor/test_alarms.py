"""Alarms are raised when something is wrong, and only then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spectra_nsa.metrics.health import anchor_health, bit_health, embedding_health
from spectra_nsa.training.monitor.alarms import alarms

TERMS = ("semantic", "fast", "anchor")
RNG = np.random.default_rng(0)


def measured(vectors: np.ndarray, codes: np.ndarray | None = None, anchors: np.ndarray | None = None) -> dict[str, Any]:
    codes = RNG.integers(0, 256, (len(vectors), 32), dtype=np.uint8) if codes is None else codes
    anchors = RNG.normal(size=(len(vectors), 64)) if anchors is None else anchors
    figures = embedding_health(vectors, vectors) | anchor_health(anchors) | bit_health(codes)
    return {"step": 500, **{f"health_{name}": value for name, value in figures.items()}}


SPREAD = RNG.normal(size=(128, 64))
CONE = np.ones(64) + 0.2 * SPREAD
LINE = np.ones(64) + 1e-4 * SPREAD
HALF = SPREAD @ np.diag([1.0] * 16 + [0.0] * 48)
TWINS = np.concatenate([SPREAD[:100], SPREAD[:28]])


@pytest.mark.parametrize(
    ("before", "now", "kind"),
    [
        (SPREAD, SPREAD, None),
        (HALF, SPREAD, None),
        (SPREAD, LINE, "collapse"),
        (LINE[:4], LINE[:4], "collapse"),  # a sample so small that a tenth of its rank is less than one
        (SPREAD, HALF, "collapse"),
        (CONE, CONE, "cone"),
        (SPREAD, TWINS, "twins"),
        (TWINS, TWINS, None),  # the data holds them
    ],
)
def test_the_vectors(before: np.ndarray, now: np.ndarray, kind: str | None) -> None:
    found = alarms([], [measured(before), measured(now)], TERMS)
    assert [alarm.kind for alarm in found] == ([kind] if kind else [])
    assert all(alarm.message and alarm.remedy for alarm in found)


def test_heads_raise_alarms_only_if_they_are_trained() -> None:
    ill = measured(SPREAD, codes=np.full((128, 32), 7, dtype=np.uint8), anchors=np.eye(64)[[3] * 128])
    assert [alarm.kind for alarm in alarms([], [ill], TERMS)] == ["dead bits", "idle anchors"]
    assert alarms([], [ill], ("semantic",)) == []
    collapsed = measured(LINE, codes=np.full((128, 32), 7, dtype=np.uint8))
    assert [alarm.kind for alarm in alarms([], [collapsed], TERMS)] == ["collapse"]


def test_dead_bits_raise_no_alarm_before_the_codes_have_learned() -> None:
    one = np.full((128, 32), 7, dtype=np.uint8)
    early = measured(SPREAD, codes=one) | {"step": 99}
    assert alarms([], [early], TERMS) == [] and len(alarms([], [early | {"step": 100}], TERMS)) == 1
    assert alarms([], [measured(SPREAD[:90], codes=one[:90])], TERMS) == [], "a sample in which a live bit may be alike"


def test_vectors_that_are_not_finite() -> None:
    assert [alarm.kind for alarm in alarms([], [{"step": 1, "health_non_finite": 3.0}], TERMS)] == ["not finite"]


def training(losses: np.ndarray, norm: float = 1.0, speed: float = 100.0, **more: Any) -> list[dict[str, Any]]:
    last = {"grad_norm": norm, "tokens_per_second": speed}
    rows = [{"step": at, "loss": float(loss), "grad_norm": 1.0, "tokens_per_second": 100.0, **more}
            for at, loss in enumerate(losses)]  # fmt: skip
    return [*rows[:-1], rows[-1] | last]


FALLING = 2.0 * np.exp(-np.arange(100) / 40) + 0.05 * RNG.normal(size=100)


def test_a_healthy_run_raises_no_alarm() -> None:
    assert alarms(training(FALLING), [], TERMS) == []
    noisy = 1.0 + 0.2 * RNG.normal(size=300)
    assert all(alarms(training(noisy[:end]), [], TERMS) == [] for end in range(1, 300))


def test_a_rising_loss() -> None:
    rising = np.concatenate([FALLING, np.full(12, 2.0)])
    assert [alarm.kind for alarm in alarms(training(rising), [], TERMS)] == ["rising loss"]
    cooled = training(FALLING, temperature=0.1) + training(np.full(60, 2.0), temperature=0.05)
    assert alarms(cooled, [], TERMS) == []  # another temperature, another scale
    joined = training(FALLING) + training(np.full(60, 2.0), ranking=1.0)
    assert alarms(joined, [], TERMS) == []


def test_a_gradient_spike() -> None:
    assert [alarm.kind for alarm in alarms(training(FALLING, norm=50.0), [], TERMS)] == ["gradient spike"]
    assert alarms(training(FALLING, norm=5.0), [], TERMS) == []


def loaded(loads: list[float], layer: int = 3, rows: int = 12) -> list[dict[str, Any]]:
    shares = {f"expert_load_{layer}_{expert}": load for expert, load in enumerate(loads)}
    even = {f"expert_load_0_{expert}": 1 / len(loads) for expert in range(len(loads))}
    return [{"step": at, "loss": 1.0} | shares | even for at in range(rows)]


def test_experts_without_tokens_and_with_all_of_them() -> None:
    assert alarms(loaded([0.4, 0.3, 0.2, 0.1]), [], TERMS) == []
    (dead,) = alarms(loaded([0.5, 0.49, 0.01, 0.0]), [], TERMS)
    assert dead.kind == "dead experts" and "2 experts get" in dead.message and "layer 3" in dead.message
    (collapse,) = alarms(loaded([0.95, 0.05, 0.0, 0.0]), [], TERMS)
    assert collapse.kind == "expert collapse" and "router_balance" in collapse.remedy
    assert alarms(loaded([1.0, 0.0], rows=9), [], TERMS) == [], "too early to judge"


def test_half_the_speed() -> None:
    rows = training(FALLING)
    slow = [row | {"tokens_per_second": 40.0, "loss": 0.2} for row in rows[:12]]
    found = alarms([*rows, *slow], [], TERMS)
    assert [alarm.kind for alarm in found] == ["slow"] and "40%" in found[0].message
    assert alarms([*rows, *slow[:3]], [], ()) == []  # a hiccup
