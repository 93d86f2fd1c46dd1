"""The effect of a change, from a few training seeds and many test items.

On seed s the change has the effect d_s = value(with it) − value(without it), both models trained from that seed and
measured on the same n items (queries, pairs, texts). The effect is the mean d̄ over S seeds, and

    SE² = V_items + V_seeds,    V_seeds = s² / S

V_items is the variance of d̄ over bootstrap draws of the items: a draw takes the same items for both models and all
seeds (Efron and Tibshirani 1993). s² is the variance of the d_s around their mean, pooled over the P changes measured
on the same metric, because two or three seeds say little about a single change:

    s² = Σ_p Σ_s (d_ps − d̄_p)² / (P (S − 1))

This assumes that the effects of all changes vary equally between seeds. All are differences from one reference and
share its seeds: two d_ps of the same seed have correlation ½ if all models vary equally, so s² has not P (S − 1) but

    ν = 4 P (S − 1) / (P + 3)

degrees of freedom (its variance is the sum of the covariances of the P variances, 2 cov² / (S − 1) each). The interval
is d̄ ± t SE with the degrees of freedom of Satterthwaite (1946),

    df = SE⁴ / (V_items² / (n − 1) + V_seeds² / ν)

With d_s = δ + a_s + mean over items of (b_i + e_si), the variance of d̄ is σ_a²/S + σ_b²/n + σ_e²/(S n). V_items holds
the last two, V_seeds the first and the last. σ_e²/(S n) is counted twice, so the intervals are slightly too wide
rather than too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL, POWER = 0.95, 0.80
MAX_SEEDS = 200


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The difference with − without the change, in one metric.

    Attributes:
        value: d̄.
        ci: its 95 % interval.
        seeds: the d_s.
        sd: the standard deviation of this change's own d_s; ``None`` for one seed.
        items_variance: V_items.
        seeds_variance: V_seeds, from the pooled s²; 0 for one seed, from which it cannot be estimated.
        df: the degrees of freedom.
        p: the two-sided p-value of no effect; 1 if nothing varies.
        n: the number of items.
    """

    value: float
    ci: tuple[float, float]
    seeds: tuple[float, ...]
    sd: float | None
    items_variance: float
    seeds_variance: float
    df: float
    p: float
    n: int

    @property
    def se(self) -> float:
        """The standard error."""
        return math.sqrt(self.items_variance + self.seeds_variance)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The smallest effect that an experiment can detect in one metric.

    Attributes:
        smallest: the effect detected with 80 % probability: (t_.975 + t_.80) times the median SE. For one change and
            three seeds the probability is 77 %, by the noncentral t.
        target: the difference one would like to detect.
        seeds: the number of seeds that would detect `target` at the same V_items; ``None`` if no number would, or if
            there is only one seed, from which the variance between seeds cannot be estimated.
        items: the approximate minimum number of items, if more seeds cannot help; otherwise ``None``.
    """

    smallest: float
    target: float
    seeds: int | None
    items: int | None


def part_effects(
    differences: Mapping[str, Sequence[float]], draws: Mapping[str, np.ndarray], n: int, *, level: float = LEVEL
) -> dict[str, Effect]:
    """Computes the effect of each change as described above.

    Args:
        differences: change → its S effects d_s.
        draws: change → (R,) bootstrap draws of its d̄; draws that are not finite are dropped.
        n: the number of items.
        level: the coverage of the intervals.
    """
    import numpy as np

    pooled = pooled_variance(differences)
    effects = {}
    for name, values in differences.items():
        count = len(values)
        kept = draws[name][np.isfinite(draws[name])]
        items = float(kept.var(ddof=1)) if len(kept) > 1 else 0.0
        seeds = pooled / count if pooled is not None else 0.0
        df = _satterthwaite(items, n - 1, seeds, _pooled_df(len(differences), count))
        effects[name] = _effect(values, items, seeds, df, n, level)
    return effects


def pooled_variance(differences: Mapping[str, Sequence[float]]) -> float | None:
    """Computes s², pooled over all changes; ``None`` for one seed."""
    import numpy as np

    table = np.asarray(list(differences.values()), dtype=np.float64)
    if table.size == 0 or table.shape[1] < 2:
        return None
    return float(table.var(axis=1, ddof=1).mean())


def holm(values: Sequence[float]) -> list[float]:
    """Adjusts p-values so that the probability of any false positive among all is at most the level (Holm 1979)."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    adjusted, highest = [1.0] * len(values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, values[index] * (len(values) - rank)))
        adjusted[index] = highest
    return adjusted


def reach(effects: Sequence[Effect], *, target: float = 0.005) -> Reach:
    """Computes the smallest detectable effect in one metric, and what it takes to detect `target`."""
    import statistics

    count, parts = len(effects[0].seeds), len(effects)
    items = statistics.median(effect.items_variance for effect in effects)
    spread = statistics.median(effect.seeds_variance for effect in effects) * count
    n = effects[0].n
    smallest = _detectable(items, n, spread, count, parts)
    needed = None
    if count > 1:
        tried = range(2, MAX_SEEDS + 1)
        needed = next((seeds for seeds in tried if _detectable(items, n, spread, seeds, parts) <= target), None)
    items_only = _detectable(items, n, 0.0, 2, parts)
    needed_items = math.ceil(n * (items_only / target) ** 2) if items_only > target else None
    return Reach(smallest=smallest, target=target, seeds=needed, items=needed_items)


def _detectable(items: float, n: int, spread: float, seeds: int, parts: int) -> float:
    from scipy import stats

    seeds_variance = spread / seeds
    df = _satterthwaite(items, n - 1, seeds_variance, _pooled_df(parts, seeds))
    factor = stats.t.ppf((1 + LEVEL) / 2, df) + stats.t.ppf(POWER, df)
    return float(factor * math.sqrt(items + seeds_variance))


def _effect(values: Sequence[float], items: float, seeds: float, df: float, n: int, level: float) -> Effect:
    import numpy as np
    from scipy import stats

    mean, se = float(np.mean(values)), math.sqrt(items + seeds)
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    return Effect(
        value=mean,
        ci=(mean - half, mean + half),
        seeds=tuple(float(value) for value in values),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        items_variance=items,
        seeds_variance=seeds,
        df=df,
        p=float(2 * stats.t.sf(abs(mean) / se, df)) if se > 0 else 1.0,
        n=n,
    )


def _pooled_df(parts: int, seeds: int) -> float:
    return 4 * parts * (seeds - 1) / (parts + 3)


def _satterthwaite(first: float, first_df: float, second: float, second_df: float) -> float:
    """Computes the degrees of freedom of a sum of two variances; at least 1."""
    spread = sum(value**2 / df for value, df in ((first, first_df), (second, second_df)) if value > 0 and df > 0)
    return max(1.0, (first + second) ** 2 / spread) if spread > 0 else max(1.0, first_df)
