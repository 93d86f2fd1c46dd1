"""What a change is worth, from a few training seeds and many test items.

On seed s the change has the effect d_s = value(with it) − value(without it), both models trained from that seed and
measured on the same n items (queries, pairs, texts). The effect is the mean d̄ over S seeds, and

    SE² = V_items + V_seeds,    V_seeds = s² / S

V_items is the variance of d̄ over bootstrap draws of the items: a draw takes the same items for both models and all
seeds (Efron and Tibshirani 1993). s² is the variance of the d_s around their mean, pooled over the P changes that were
measured on the same metric, since two or three seeds say little of one change alone:

    s² = Σ_p Σ_s (d_ps − d̄_p)² / (P (S − 1))

It assumes that the changes' effects vary alike from seed to seed. All of them are differences to one reference, whose
own seeds they share: two d_ps of one seed correlate by ½ where all models vary alike, and s² has not P (S − 1) but

    ν = 4 P (S − 1) / (P + 3)

degrees of freedom (its variance is the sum of the covariances of the P variances, 2 cov² / (S − 1) each). The interval
is d̄ ± t SE with the degrees of freedom of Satterthwaite (1946),

    df = SE⁴ / (V_items² / (n − 1) + V_seeds² / ν)

With d_s = δ + a_s + mean over items of (b_i + e_si), the variance of d̄ is σ_a²/S + σ_b²/n + σ_e²/(S n). V_items holds
the last two, V_seeds the first and the last: σ_e²/(S n) is counted twice, so that intervals are a little too wide
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
MOST_SEEDS = 200


@dataclass(frozen=True, kw_only=True)
class Effect:
    """with − without, in one metric.

    Attributes:
        value: d̄.
        ci: its 95 % interval.
        seeds: the d_s.
        sd: the standard deviation of this change's own d_s; ``None`` for one seed.
        items_variance: V_items.
        seeds_variance: V_seeds, from the pooled s²; 0 for one seed, which says nothing of other seeds.
        df: the degrees of freedom.
        p: two-sided, of no effect; 1 where nothing varies.
        n: items.
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
    """What the effects of one metric could have shown.

    Attributes:
        smallest: the effect that is found with a probability of 80 %: (t_.975 + t_.80) times the median SE (of one
            change and three seeds 77 %, by the noncentral t).
        target: a difference that one would like to see.
        seeds: how many seeds would find `target`, V_items staying as it is; ``None`` where no number of them would
            (or for one seed, from which nothing is known of others).
        items: about how many items it would take at the least where seeds do not help; ``None`` elsewhere.
    """

    smallest: float
    target: float
    seeds: int | None
    items: int | None


def part_effects(
    differences: Mapping[str, Sequence[float]], draws: Mapping[str, np.ndarray], n: int, *, level: float = LEVEL
) -> dict[str, Effect]:
    """The effect of each change, see above.

    Args:
        differences: change → its S effects d_s.
        draws: change → (R,) bootstrap draws of its d̄; those that are not finite are left out.
        n: items.
        level: the intervals' coverage.
    """
    import numpy as np

    pooled = pooled_variance(differences)
    found = {}
    for name, values in differences.items():
        count = len(values)
        kept = draws[name][np.isfinite(draws[name])]
        items = float(kept.var(ddof=1)) if len(kept) > 1 else 0.0
        seeds = pooled / count if pooled is not None else 0.0
        df = _satterthwaite(items, n - 1, seeds, _pooled_df(len(differences), count))
        found[name] = _effect(values, items, seeds, df, n, level)
    return found


def pooled_variance(differences: Mapping[str, Sequence[float]]) -> float | None:
    """s², pooled over all changes; ``None`` for one seed."""
    import numpy as np

    table = np.asarray(list(differences.values()), dtype=np.float64)
    if table.size == 0 or table.shape[1] < 2:
        return None
    return float(table.var(axis=1, ddof=1).mean())


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted so that the chance of any false finding among all is at most the level (Holm 1979)."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    adjusted, highest = [1.0] * len(values), 0.0
    for place, at in enumerate(order):
        highest = max(highest, min(1.0, values[at] * (len(values) - place)))
        adjusted[at] = highest
    return adjusted


def reach(effects: Sequence[Effect], *, target: float = 0.005) -> Reach:
    """What these effects of one metric, measured together, could have shown, and what it would take to see `target`."""
    import statistics

    count, parts = len(effects[0].seeds), len(effects)
    items = statistics.median(one.items_variance for one in effects)
    spread = statistics.median(one.seeds_variance for one in effects) * count
    n = effects[0].n
    smallest = _detectable(items, n, spread, count, parts)
    needed = None
    if count > 1:
        tried = range(2, MOST_SEEDS + 1)
        needed = next((one for one in tried if _detectable(items, n, spread, one, parts) <= target), None)
    alone = _detectable(items, n, 0.0, 2, parts)
    most = math.ceil(n * (alone / target) ** 2) if alone > target else None
    return Reach(smallest=smallest, target=target, seeds=needed, items=most)


def _detectable(items: float, n: int, spread: float, seeds: int, parts: int) -> float:
    from scipy import stats

    varies = spread / seeds
    df = _satterthwaite(items, n - 1, varies, _pooled_df(parts, seeds))
    factor = stats.t.ppf((1 + LEVEL) / 2, df) + stats.t.ppf(POWER, df)
    return float(factor * math.sqrt(items + varies))


def _effect(values: Sequence[float], items: float, seeds: float, df: float, n: int, level: float) -> Effect:
    import numpy as np
    from scipy import stats

    value, se = float(np.mean(values)), math.sqrt(items + seeds)
    half = float(stats.t.ppf((1 + level) / 2, df)) * se
    return Effect(
        value=value,
        ci=(value - half, value + half),
        seeds=tuple(float(one) for one in values),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        items_variance=items,
        seeds_variance=seeds,
        df=df,
        p=float(2 * stats.t.sf(abs(value) / se, df)) if se > 0 else 1.0,
        n=n,
    )


def _pooled_df(parts: int, seeds: int) -> float:
    return 4 * parts * (seeds - 1) / (parts + 3)


def _satterthwaite(first: float, first_df: float, second: float, second_df: float) -> float:
    """The degrees of freedom of a sum of two variances; at least 1."""
    spread = sum(value**2 / df for value, df in ((first, first_df), (second, second_df)) if value > 0 and df > 0)
    return max(1.0, (first + second) ** 2 / spread) if spread > 0 else max(1.0, first_df)
