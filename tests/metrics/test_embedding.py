from __future__ import annotations

import math

import numpy as np
import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.embedding import effective_rank, embedding_statistics


def test_against_the_definitions_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=(30, 5))
    u, v = x / np.linalg.norm(x, axis=1, keepdims=True), y / np.linalg.norm(y, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(30) for j in range(30) if i != j]
    got = embedding_statistics(x, partners=y)
    assert got["mean_norm"] == pytest.approx(np.linalg.norm(x, axis=1).mean())
    assert got["mean_cosine"] == pytest.approx(np.mean([u[i] @ u[j] for i, j in pairs]))
    assert got["log_mean_square_cosine"] == pytest.approx(np.log(np.mean([(u[i] @ u[j]) ** 2 for i, j in pairs])))
    reference = np.log(np.mean([np.exp(-2 * ((u[i] - u[j]) ** 2).sum()) for i, j in pairs]))
    assert got["uniformity"] == pytest.approx(reference)
    assert got["alignment"] == pytest.approx(((u - v) ** 2).sum(1).mean())


def test_isotropic_rows() -> None:
    got = embedding_statistics(np.random.default_rng(1).normal(size=(1500, 32)))
    assert got["log_mean_square_cosine"] == pytest.approx(-math.log(32), abs=0.05)
    assert got["effective_rank"] == pytest.approx(32, abs=0.5)
    assert got["mean_cosine"] == pytest.approx(0, abs=0.01)
    assert got["near_duplicates"] == 0


def test_collapse_is_visible() -> None:
    got = embedding_statistics(np.tile(np.array([[1.0, 2.0, 3.0]]), (10, 1)))
    assert got["mean_cosine"] == pytest.approx(1)
    assert got["effective_rank"] == pytest.approx(1)
    assert got["near_duplicates"] == 1
    assert got["uniformity"] == pytest.approx(0, abs=1e-9)


def test_effective_rank_of_equal_directions() -> None:
    assert effective_rank(np.eye(7)) == pytest.approx(7)
    assert math.isnan(effective_rank(np.zeros((0, 3))))


def test_non_finite_rows_are_counted_and_ignored() -> None:
    x = np.eye(4)
    x[1, 0], x[2, 2] = np.nan, np.inf
    got = embedding_statistics(x)
    assert got["non_finite"] == 2 and got["mean_norm"] == 1
    assert math.isnan(embedding_statistics(np.full((3, 2), np.nan))["effective_rank"])


def test_sampling_is_bounded_and_repeatable() -> None:
    x = np.random.default_rng(2).normal(size=(5000, 8)).astype(np.float32)
    got = embedding_statistics(x, sample=300)
    assert got == embedding_statistics(x, sample=300) != embedding_statistics(x, sample=300, seed=1)
    assert got["mean_cosine"] == pytest.approx(embedding_statistics(x, sample=5000)["mean_cosine"], abs=0.01)


def test_shapes_are_checked() -> None:
    with pytest.raises(SpectraError, match="same shape"):
        embedding_statistics(np.eye(3), partners=np.eye(2))
