from __future__ import annotations

import math

import numpy as np
import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.cka import linear_cka

RNG = np.random.default_rng(0)


def test_agrees_with_the_definition_by_centered_gram_matrices() -> None:
    x, y = RNG.normal(size=(40, 6)) + 3, RNG.normal(size=(40, 9))
    y[:, :6] += x
    center = np.eye(40) - 1 / 40
    k, m = center @ x @ x.T @ center, center @ y @ y.T @ center
    expected = np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert linear_cka(x, y) == pytest.approx(expected)
    assert linear_cka(y, x) == pytest.approx(expected)


def test_a_rotated_scaled_and_shifted_copy_is_the_same() -> None:
    x = RNG.normal(size=(50, 8))
    rotation = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    assert linear_cka(x, -2.5 * x @ rotation + 7) == pytest.approx(1)
    assert linear_cka(x, x @ np.diag([5.0, *[0.2] * 7])) < 0.9


def test_unrelated_vectors_are_near_chance() -> None:
    assert linear_cka(RNG.normal(size=(4000, 16)), RNG.normal(size=(4000, 16))) < 0.01


def test_undefined_cases() -> None:
    assert math.isnan(linear_cka(np.ones((5, 2)), RNG.normal(size=(5, 2))))
    with pytest.raises(SpectraError, match="3 and 4 rows"):
        linear_cka(np.ones((3, 2)), np.ones((4, 2)))
