from __future__ import annotations

import math

import numpy as np
import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.similarity import cosine_pairs, pearson, spearman


def test_worked_examples() -> None:
    assert pearson(np.array([1, 2, 3]), np.array([2, 4, 7])) == pytest.approx(5 / math.sqrt(2 * 38 / 3))
    assert spearman(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman(np.array([1, 2, 3]), np.array([10, 100, 1000])) == pytest.approx(1)


@pytest.mark.parametrize("bad", [[1.0, 1.0, 1.0], [1.0, math.nan, 2.0]])
def test_undefined_is_nan_without_a_warning(bad: list[float], recwarn: pytest.WarningsRecorder) -> None:
    for correlation in (pearson, spearman):
        assert math.isnan(correlation(np.array(bad), np.arange(3.0)))
    assert math.isnan(spearman(np.array([1.0]), np.array([1.0])))
    assert not list(recwarn)


def test_lengths_must_agree() -> None:
    with pytest.raises(SpectraError, match="3 and 2"):
        spearman(np.zeros(3), np.zeros(2))


def test_cosine_pairs_against_the_definition() -> None:
    a, b = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), np.array([[4.0, 3.0], [-2.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(cosine_pairs(a, b), [24 / 25, -1, 0])
