from __future__ import annotations

import numpy as np
import pytest

from spectra_nsa.metrics.health import anchor_health, bit_health, embedding_health, von_neumann_entropy


def test_entropy_of_known_cases() -> None:
    assert von_neumann_entropy(np.eye(6)) == pytest.approx(1.0)
    assert von_neumann_entropy(np.ones((6, 4))) == pytest.approx(0.0, abs=1e-9)
    two = np.repeat(np.eye(4)[:2], 8, axis=0) * 3.0  # two directions of four, length does not count
    assert von_neumann_entropy(two) == pytest.approx(0.5)
    assert np.isnan(von_neumann_entropy(np.ones((1, 4)))) and np.isnan(von_neumann_entropy(np.zeros((3, 4))))


def test_entropy_agrees_with_the_eigenvalues_of_the_density_matrix() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 7))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit.T @ unit / len(unit))
    assert von_neumann_entropy(rows) == pytest.approx(-(values * np.log(values)).sum() / np.log(7))


def test_collapse_is_visible() -> None:
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(64, 32))
    cone = np.ones(32) + 0.01 * rng.normal(size=(64, 32))
    healthy, collapsed = embedding_health(spread, spread + 0.1), embedding_health(cone, cone)
    assert healthy["rank_share"] > 0.8 and collapsed["rank_share"] < 0.3
    assert healthy["mean_cosine"] < 0.1 and collapsed["mean_cosine"] > 0.99
    assert healthy["near_duplicates"] == 0 and collapsed["near_duplicates"] == 1
    assert collapsed["alignment"] == pytest.approx(0, abs=1e-9) and healthy["alignment"] > 0


def test_anchors() -> None:
    assert anchor_health(np.eye(8)) == {"anchors_used": 1.0, "anchors_entropy": pytest.approx(1.0)}
    one = np.zeros((16, 8))
    one[:, 3] = 1
    assert anchor_health(one) == {"anchors_used": 0.125, "anchors_entropy": 0.0}
    few = anchor_health(np.eye(64)[:4])  # four texts cannot use more than four anchors
    assert few == {"anchors_used": 4 / 64, "anchors_entropy": pytest.approx(1.0)}


def test_bits() -> None:
    codes = np.arange(256, dtype=np.uint8)[:, None]  # eight independent bits, each set by half
    assert bit_health(codes) == {"bits_balance": 1.0, "bits_dead": 0.0, "bits_correlation": pytest.approx(0.0)}
    same = bit_health(np.array([[255], [0]], dtype=np.uint8))
    assert same["bits_correlation"] == pytest.approx(1.0) and same["bits_balance"] == 1.0
    dead = bit_health(np.full((100, 1), 0b11110000, dtype=np.uint8))
    assert dead["bits_dead"] == 1.0 and dead["bits_balance"] == 0.0 and np.isnan(dead["bits_correlation"])
    assert np.isnan(bit_health(np.full((99, 1), 0b11110000, dtype=np.uint8))["bits_dead"]), "too few texts to tell"
