from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.detection import (
    auroc,
    auroc_draws,
    average_precision,
    false_positive_rate,
    paired_auroc_difference,
)

scores = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@settings(deadline=None)  # the first call imports scikit-learn
@given(scores, scores)
def test_auroc_is_the_share_of_ordered_pairs(positive: list[int], negative: list[int]) -> None:
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(np.array(positive), np.array(negative)) == pytest.approx(np.mean(wins))


@settings(deadline=None)  # the first call imports scikit-learn
@given(scores, scores)
def test_false_positive_rate_is_the_best_over_all_thresholds(positive: list[int], negative: list[int]) -> None:
    p, n = np.array(positive), np.array(negative)
    reference = min(float((n >= cut).mean()) for cut in p if (p >= cut).mean() >= 0.95)
    assert false_positive_rate(p, n) == pytest.approx(reference)


def test_one_empty_side() -> None:
    with pytest.raises(SpectraError, match="each side"):
        auroc(np.array([1.0]), np.array([]))


@settings(deadline=None)  # the first call imports scikit-learn
@given(scores, scores)
def test_average_precision_sums_precision_over_steps_of_recall(positive: list[int], negative: list[int]) -> None:
    p, n = np.array(positive), np.array(negative)
    expected, previous = 0.0, 0.0
    for cut in sorted({*positive, *negative}, reverse=True):
        recall = (p >= cut).mean()
        precision = (p >= cut).sum() / ((p >= cut).sum() + (n >= cut).sum())
        expected, previous = expected + (recall - previous) * precision, recall
    assert average_precision(p, n) == pytest.approx(expected)


def delong(a: np.ndarray, b: np.ndarray, positive: np.ndarray) -> float:
    """Computes the standard error of a difference of AUROCs (DeLong et al. 1988), from every pair of texts."""
    wins = [
        (s[positive][:, None] > s[~positive]) + 0.5 * (s[positive][:, None] == s[~positive]).astype(float)
        for s in (a, b)
    ]
    gap = wins[0] - wins[1]
    return float(np.sqrt(gap.mean(1).var(ddof=1) / positive.sum() + gap.mean(0).var(ddof=1) / (~positive).sum()))


def test_paired_difference_agrees_with_delong() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(700) < 200
    shared = rng.normal(size=700) + positive
    a, b = shared + rng.normal(size=700) * 0.5, np.round(shared + rng.normal(size=700))  # b has ties
    found = paired_auroc_difference(a, b, positive)
    assert found.value == pytest.approx(auroc(a[positive], a[~positive]) - auroc(b[positive], b[~positive]))
    error = delong(a, b, positive)
    half = 1.96 * error
    np.testing.assert_allclose(found.ci, [found.value - half, found.value + half], atol=0.1 * half)
    assert found.share_not_above == pytest.approx(stats.norm.cdf(-found.value / error), abs=0.02)
    assert found.n == 700


def test_paired_difference_of_a_system_with_itself_is_zero() -> None:
    a = np.random.default_rng(1).normal(size=60)
    found = paired_auroc_difference(a, 3 * a + 1, np.arange(60) < 20, resamples=50)
    assert found.value == 0 and found.ci == (0, 0) and found.share_not_above == 1


def test_auroc_draws_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    positive, negative = rng.integers(0, 9, 40) + 2, rng.integers(0, 9, 40)
    rows = np.random.default_rng(0).integers(0, 40, size=(5, 40))
    expected = [auroc(positive[row], negative[row]) for row in rows]
    assert auroc_draws(positive, negative, resamples=5) == pytest.approx(expected)
