"""Percentile bootstrap (Efron 1979): how much a figure varies with the sample of queries or pairs.

A draw takes n of n units with replacement. The interval spans the quantiles of the statistic over `resamples` draws.
The seed is fixed: the same values give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 2000
_BLOCK = 4_000_000  # drawn values at a time; limits memory to about 100 MB


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference a − b over the same units.

    Attributes:
        value: the difference of the two figures.
        ci: its 95 % interval.
        share_not_above: the fraction of resamples with a − b ≤ 0. Near 0, a is reliably better; near 1, worse.
        n: the number of units.
    """

    value: float
    ci: tuple[float, float]
    share_not_above: float
    n: int


def mean_interval(
    values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Computes the interval of the mean of (N,) values; ``(nan, nan)`` if N = 0."""
    return interval_of(mean_draws(values, resamples=resamples, seed=seed), level)


def correlation_interval(
    x: np.ndarray,
    y: np.ndarray,
    *,
    method: str = "spearman",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Computes the interval of the correlation of two (N,) arrays. The units are the pairs (xᵢ, yᵢ).

    Args:
        x: (N,).
        y: (N,).
        method: ``"spearman"`` (ranks are recomputed in each draw) or ``"pearson"``.
        level: the interval's coverage.
        resamples: the number of draws.
        seed: the seed of the draws.

    Returns:
        (low, high); ``(nan, nan)`` if N < 2 or one side is constant. Draws in which a side is constant are dropped.

    Raises:
        ValueError: `method` is unknown.
    """
    return interval_of(correlation_draws(x, y, method=method, resamples=resamples, seed=seed), level)


def mean_draws(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Returns the mean of (N,) values in each draw: (resamples,). The same N and seed draw the same rows."""
    import numpy as np

    values = np.asarray(values, dtype=np.float64)
    return statistic_draws(len(values), lambda rows: values[rows].mean(axis=1), resamples, seed)


def correlation_draws(
    x: np.ndarray, y: np.ndarray, *, method: str = "spearman", resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Returns the correlation of (N,) with (N,) in each draw: (resamples,). It draws the same rows as `mean_draws`."""
    import numpy as np

    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return statistic_draws(len(x), lambda rows: _correlations(x[rows], y[rows], method), resamples, seed)


def paired_difference(
    a: np.ndarray, b: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Computes mean(a) − mean(b) for the values of two systems on the same N units. Both use the same draws."""
    import numpy as np

    gap = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    draws = statistic_draws(len(gap), lambda rows: gap[rows].mean(axis=1), resamples, seed)
    return difference_of(float(gap.mean()) if len(gap) else float("nan"), draws, level, len(gap))


def paired_correlation_difference(
    a: np.ndarray,
    b: np.ndarray,
    gold: np.ndarray,
    *,
    method: str = "spearman",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Computes corr(a, gold) − corr(b, gold) for the (N,) similarities of two systems on the same N pairs."""
    import numpy as np

    a, b, gold = (np.asarray(side, dtype=np.float64) for side in (a, b, gold))

    def gap(rows: np.ndarray) -> np.ndarray:
        return _correlations(a[rows], gold[rows], method) - _correlations(b[rows], gold[rows], method)

    value = float(gap(np.arange(len(gold))[None])[0]) if len(gold) > 1 else float("nan")
    return difference_of(value, statistic_draws(len(gold), gap, resamples, seed), level, len(gold))


def statistic_draws(
    n: int, statistic: Callable[[np.ndarray], np.ndarray], resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Returns `statistic`, which maps (B, n) row numbers to (B,), for all resamples; empty if n = 0."""
    import numpy as np

    if n == 0:
        return np.empty(0)
    generator = np.random.default_rng(seed)
    size = max(1, min(resamples, _BLOCK // n))
    counts = [min(size, resamples - start) for start in range(0, resamples, size)]
    return np.concatenate([statistic(generator.integers(0, n, size=(count, n))) for count in counts])


def _correlations(x: np.ndarray, y: np.ndarray, method: str) -> np.ndarray:
    """Computes the row-wise correlation of (B, N) with (B, N): (B,), ``nan`` for a constant row."""
    import numpy as np
    from scipy import stats

    if method == "spearman":
        x, y = stats.rankdata(x, axis=1), stats.rankdata(y, axis=1)
    elif method != "pearson":
        raise ValueError(f"method must be 'spearman' or 'pearson', not {method!r}.")
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    product = (x * y).sum(axis=1)
    return np.divide(product, scale, out=np.full_like(product, np.nan), where=scale > 0)


def interval_of(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Returns the interval of draws, ignoring those that are not finite; ``(nan, nan)`` if none is finite."""
    import numpy as np

    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def difference_of(value: float, draws: np.ndarray, level: float, n: int) -> Difference:
    """Returns a difference over n units with the interval of its draws. Draws that are not finite are dropped."""
    import numpy as np

    finite = draws[np.isfinite(draws)]
    share = float((finite <= 0).mean()) if len(finite) else float("nan")
    return Difference(value=value, ci=interval_of(draws, level), share_not_above=share, n=n)
