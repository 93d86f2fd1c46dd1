"""Detection by one score: AUROC, average precision, and the false positive rate at a fixed true positive rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.bootstrap import RESAMPLES, Difference, difference_of, statistic_draws

if TYPE_CHECKING:
    import numpy as np


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Computes P(score of a positive > score of a negative), with ties as ½: the area under the ROC curve.

    Args:
        positive: (N,) scores that should be large.
        negative: (M,) scores that should be small.

    Raises:
        SpectraError: one side has no scores.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = _joined(positive, negative)
    return float(roc_auc_score(labels, scores))


def false_positive_rate(positive: np.ndarray, negative: np.ndarray, *, true_positive_rate: float = 0.95) -> float:
    """Computes the lowest false positive rate of a threshold with at least the given true positive rate (``fpr95``).

    Args:
        positive: (N,) scores that should be large.
        negative: (M,) scores that should be small.
        true_positive_rate: the fraction of positives at or above the threshold.

    Raises:
        SpectraError: one side has no scores.
    """
    from sklearn.metrics import roc_curve

    labels, scores = _joined(positive, negative)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(false[true >= true_positive_rate - 1e-12].min())


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Computes Σ_n (R_n − R_(n−1)) P_n over the thresholds: the area under precision and recall (AUPR).

    It is not interpolated. Unlike AUROC, it depends on the sizes of the two sides and on which side is positive.

    Args:
        positive: (N,) scores that should be large.
        negative: (M,) scores that should be small.

    Raises:
        SpectraError: one side has no scores.
    """
    from sklearn.metrics import average_precision_score

    labels, scores = _joined(positive, negative)
    return float(average_precision_score(labels, scores))


def paired_auroc_difference(
    a: np.ndarray,
    b: np.ndarray,
    positive: np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Computes AUROC of a − AUROC of b on the same texts. Both use the same draws; each side is drawn separately.

    Args:
        a: (N,) scores of one system.
        b: (N,) scores of the other system for the same texts.
        positive: (N,) True for the texts that should have large scores.
        level: the interval's coverage.
        resamples: the number of draws.
        seed: the seed of the draws.

    Raises:
        SpectraError: one side has no scores.
    """
    import numpy as np

    positive = np.asarray(positive, dtype=bool)
    sides = [np.flatnonzero(positive), np.flatnonzero(~positive)]
    systems = [np.asarray(system).ravel() for system in (a, b)]
    first, second = (auroc(system[sides[0]], system[sides[1]]) for system in systems)
    ranks = [np.unique(system, return_inverse=True)[1] for system in systems]
    generator = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for draw in range(resamples):
        drawn = [generator.choice(side, size=len(side)) for side in sides]
        drawn_a, drawn_b = (_auroc_of_ranks(rank[drawn[0]], rank[drawn[1]]) for rank in ranks)
        draws[draw] = drawn_a - drawn_b
    return difference_of(first - second, draws, level, len(positive))


def auroc_draws(positive: np.ndarray, negative: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Returns the AUROC in each bootstrap draw of the units: (resamples,).

    A unit is a positive score and its negative score, so both are drawn together. The same N and seed draw the same
    units, so the draws of two systems can be subtracted.

    Args:
        positive: (N,) scores that should be large.
        negative: (N,) scores that should be small.
        resamples: the number of draws.
        seed: the seed of the draws.
    """
    import numpy as np

    ranks = np.unique(np.concatenate([positive, negative]), return_inverse=True)[1]
    above, below = np.split(ranks, 2)

    def statistic(rows: np.ndarray) -> np.ndarray:
        return np.array([_auroc_of_ranks(above[row], below[row]) for row in rows])

    return statistic_draws(len(above), statistic, resamples, seed)


def _auroc_of_ranks(positive: np.ndarray, negative: np.ndarray) -> float:
    """Computes `auroc` of nonnegative integers by counting, which takes about 0.1 ms for a few thousand."""
    import numpy as np

    size = int(max(positive.max(), negative.max())) + 1
    above, below = np.bincount(positive, minlength=size), np.bincount(negative, minlength=size)
    wins = above @ (np.cumsum(below) - below / 2)
    return float(wins / (len(positive) * len(negative)))


def _joined(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    positive, negative = np.asarray(positive).ravel(), np.asarray(negative).ravel()
    if not len(positive) or not len(negative):
        raise SpectraError("detection needs at least one score on each side (positive and negative).")
    labels = np.concatenate([np.ones(len(positive), dtype=int), np.zeros(len(negative), dtype=int)])
    return labels, np.concatenate([positive, negative])
