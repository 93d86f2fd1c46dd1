from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spectra_nsa.metrics.bootstrap import (
    correlation_interval,
    mean_interval,
    paired_correlation_difference,
    paired_difference,
)


def test_mean_interval_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, size=1000)
    low, high = mean_interval(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(1000)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_mean_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=200)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000).confidence_interval
    np.testing.assert_allclose(mean_interval(values, resamples=5000), reference, atol=0.02)


def test_coverage_of_a_known_mean() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        low, high = mean_interval(rng.normal(size=80), resamples=400)
        hits += low <= 0 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_same_values_same_interval() -> None:
    values = np.random.default_rng(3).random(50)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=1)


def test_empty_and_constant() -> None:
    assert all(map(math.isnan, mean_interval(np.array([]))))
    assert mean_interval(np.full(5, 0.25)) == (0.25, 0.25)
    assert all(map(math.isnan, correlation_interval(np.ones(5), np.arange(5.0))))


def test_pearson_interval_agrees_with_the_fisher_interval() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=800)
    y = 0.8 * x + 0.6 * rng.normal(size=800)
    reference = stats.pearsonr(x, y).confidence_interval()
    np.testing.assert_allclose(correlation_interval(x, y, method="pearson"), reference, atol=0.01)
    low, high = correlation_interval(x, y)
    assert low < stats.spearmanr(x, y).statistic < high
    with pytest.raises(ValueError, match="kendall"):
        correlation_interval(x, y, method="kendall")


def test_pairing_detects_a_small_steady_gain_that_separate_intervals_miss() -> None:
    rng = np.random.default_rng(5)
    base = rng.random(300)
    better = base + 0.02 + 0.02 * rng.normal(size=300)
    gap = paired_difference(better, base)
    assert gap.value == pytest.approx(0.02, abs=0.005)
    assert gap.ci[0] > 0 and gap.share_not_above == 0 and gap.n == 300
    assert mean_interval(better)[0] < mean_interval(base)[1]
    assert paired_difference(base, better).share_not_above == 1
    assert paired_difference(base, base).share_not_above == 1


def test_paired_correlations() -> None:
    rng = np.random.default_rng(6)
    gold = rng.random(400)
    good, bad = gold + 0.1 * rng.normal(size=400), gold + 0.5 * rng.normal(size=400)
    gap = paired_correlation_difference(good, bad, gold)
    expected = stats.spearmanr(good, gold).statistic - stats.spearmanr(bad, gold).statistic
    assert gap.value == pytest.approx(expected)
    assert gap.ci[0] < expected < gap.ci[1] and gap.share_not_above == 0
