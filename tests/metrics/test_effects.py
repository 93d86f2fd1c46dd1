"""Effects over seeds and items: coverage in simulations, and each formula compared with its source."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spectra_nsa.metrics.bootstrap import correlation_draws, mean_draws
from spectra_nsa.metrics.effects import holm, part_effects, pooled_variance, reach

ITEMS, SEEDS, DRAWS = 120, 3, 150


def experiment(generator: np.random.Generator, truth: list[float]) -> np.ndarray:
    """Simulates (1 + parts, seeds, items) values with item, seed, model × item and residual noise.

    The first model is the reference.
    """
    models = len(truth) + 1
    mean = np.array([0.0, *truth])[:, None, None]
    item = generator.normal(0, 0.30, ITEMS)[None, None]
    by_item = generator.normal(0, 0.06, (models, 1, ITEMS))
    by_seed = generator.normal(0, 0.008, (models, SEEDS, 1))
    return 0.5 + mean + item + by_item + by_seed + generator.normal(0, 0.03, (models, SEEDS, ITEMS))


def inputs(values: np.ndarray) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Returns the effects on each seed and the draws, of each model against the reference."""
    means = values.mean(axis=2)
    draws = np.array([[mean_draws(seed, resamples=DRAWS) for seed in model] for model in values]).mean(axis=1)
    names = [f"part{i}" for i in range(1, len(values))]
    return (
        {name: list(means[i] - means[0]) for i, name in enumerate(names, 1)},
        {name: draws[i] - draws[0] for i, name in enumerate(names, 1)},
    )


def test_about_95_percent_of_intervals_cover_the_truth_and_fewer_would_without_seed_variance() -> None:
    generator, truth = np.random.default_rng(0), [0.0, 0.01, -0.02]
    covered = covered_by_items = total = 0
    for _ in range(250):
        differences, draws = inputs(experiment(generator, truth))
        effects = part_effects(differences, draws, ITEMS)
        for effect, true in zip(effects.values(), truth, strict=True):
            total += 1
            covered += effect.ci[0] <= true <= effect.ci[1]
            half = 1.96 * effect.items_variance**0.5
            covered_by_items += abs(effect.value - true) <= half
    assert 0.935 <= covered / total <= 0.985
    assert covered_by_items / total < 0.90, "the test needs a simulation in which seed noise matters"


def test_degrees_of_freedom_of_the_pooled_variance() -> None:
    """ν = 2 E[s²]² / Var[s²], in a simulation with one reference for all parts."""
    generator, parts = np.random.default_rng(1), 5
    noise = generator.normal(size=(20_000, parts + 1, SEEDS))
    variances = np.array([pooled_variance(dict(enumerate(run[1:] - run[0]))) for run in noise[:4000]])
    expected = 4 * parts * (SEEDS - 1) / (parts + 3)
    assert 2 * variances.mean() ** 2 / variances.var() == pytest.approx(expected, rel=0.1)


def test_one_part_without_item_noise_is_the_paired_t_test() -> None:
    values = [0.013, 0.021, 0.017, 0.008]
    (effect,) = part_effects({"part": values}, {"part": np.full(50, np.mean(values))}, 100).values()
    reference = stats.ttest_1samp(values, 0)
    interval = reference.confidence_interval(0.95)
    assert effect.p == pytest.approx(reference.pvalue)
    assert effect.ci == pytest.approx((interval.low, interval.high))
    assert effect.df == pytest.approx(3) and effect.sd == pytest.approx(np.std(values, ddof=1))


def test_one_seed_has_only_the_item_interval() -> None:
    gap = np.random.default_rng(2).normal(0.02, 0.1, 400)
    (effect,) = part_effects({"part": [gap.mean()]}, {"part": mean_draws(gap)}, len(gap)).values()
    assert effect.seeds_variance == 0 and effect.sd is None
    assert effect.se == pytest.approx(gap.std() / np.sqrt(len(gap)), rel=0.05)
    assert reach([effect]).seeds is None


def test_a_constant_difference_of_zero_is_not_significant() -> None:
    (effect,) = part_effects({"part": [0.0, 0.0]}, {"part": np.zeros(20)}, 10).values()
    assert effect.ci == (0, 0) and effect.p == 1


def test_draws_that_are_not_finite_are_dropped() -> None:
    draws = np.array([0.1, np.nan, 0.3])
    (effect,) = part_effects({"part": [0.2]}, {"part": draws}, 3).values()
    assert effect.items_variance == pytest.approx(np.var([0.1, 0.3], ddof=1))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # by hand
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_smallest_detectable_effect_is_detected_four_times_in_five() -> None:
    generator, parts = np.random.default_rng(3), 5
    none = [list(part_effects(*inputs(experiment(generator, [0.0] * parts)), ITEMS).values()) for _ in range(60)]
    size = float(np.mean([reach(effects).smallest for effects in none]))
    tried = [part_effects(*inputs(experiment(generator, [size] * parts)), ITEMS).values() for _ in range(60)]
    assert 0.7 < np.mean([effect.p < 0.05 for effects in tried for effect in effects]) < 0.9


def test_more_seeds_detect_smaller_effects_until_the_items_limit_them() -> None:
    generator = np.random.default_rng(4)
    values = experiment(generator, [0.0, 0.0])
    effects = list(part_effects(*inputs(values), ITEMS).values())
    near, far = reach(effects, target=0.03), reach(effects, target=0.001)
    assert near.seeds is not None and 2 <= near.seeds < 60 and near.items is None
    assert far.seeds is None and far.items is not None and far.items > ITEMS


def test_correlations_use_the_same_draws_as_means() -> None:
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(2, 50))
    rows = np.random.default_rng(0).integers(0, 50, size=(7, 50))
    assert mean_draws(x, resamples=7) == pytest.approx(x[rows].mean(axis=1))
    expected = [stats.spearmanr(x[row], y[row]).statistic for row in rows]
    assert correlation_draws(x, y, resamples=7) == pytest.approx(expected)
