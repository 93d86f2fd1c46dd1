"""Telling two groups apart by one score: AUROC, average precision, and the false alarms at a fixed hit rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.bootstrap import RESAMPLES, Difference, difference_of

if TYPE_CHECKING:
    import numpy as np


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """P(score of a positive > score of a negative), ties counting ½: the area under the ROC curve.

    Args:
        positive: (N,) scores that should be large.
        negative: (M,) scores that should be small.

    Raises:
        SpectraError: one side is empty.
    """
    from sklearn.metrics import roc_auc_score

    labels, scores = _joined(positive, negative)
    return float(roc_auc_score(labels, scores))


def false_positive_rate(positive: np.ndarray, negative: np.ndarray, *, true_positive_rate: float = 0.95) -> float:
    """The smallest share of negatives at or above a threshold that keeps that share of the positives (``fpr95``).

    Args:
        positive: (N,) scores that should be large.
        negative: (M,) scores that should be small.
        true_positive_rate: the share of positives that must be kept.

    Raises:
        SpectraError: one side is empty.
    """
    from sklearn.metrics import roc_curve

    labels, scores = _joined(positive, negative)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(false[true >= true_positive_rate - 1e-12].min())


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Σ_n (R_n − R_(n−1)) P_n over the thresholds: the area under precision and recall (AUPR), not interpolated.

    Unlike AUROC it depends on how many there are of each side, and on which of them is the positive one.

    Args:
        positive: (N,) scores that should be large.
        negative: (M,) scores that should be small.

    Raises:
        SpectraError: one side is empty.
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
    """AUROC of a − AUROC of b on the same texts: a text is drawn for both at once, each side from its own.

    Args:
        a: (N,) scores of one system.
        b: (N,) scores of the other, of the same texts.
        positive: (N,) which texts should have large scores.
        level: the interval's coverage.
        resamples: the number of draws.
        seed: of the draws.

    Raises:
        SpectraError: one side is empty.
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
        one, other = (_auroc_of_ranks(rank[drawn[0]], rank[drawn[1]]) for rank in ranks)
        draws[draw] = one - other
    return difference_of(first - second, draws, level, len(positive))


def _auroc_of_ranks(positive: np.ndarray, negative: np.ndarray) -> float:
    """`auroc` of whole numbers from 0, by counting: a draw of some thousands takes some 0.1 ms."""
    import numpy as np

    size = int(max(positive.max(), negative.max())) + 1
    above, below = np.bincount(positive, minlength=size), np.bincount(negative, minlength=size)
    wins = above @ (np.cumsum(below) - below / 2)
    return float(wins / (len(positive) * len(negative)))


def _joined(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    positive, negative = np.asarray(positive).ravel(), np.asarray(negative).ravel()
    if not len(positive) or not len(negative):
        raise SpectraError("detection needs at least one score on each side.")
    labels = np.concatenate([np.ones(len(positive), dtype=int), np.zeros(len(negative), dtype=int)])
    return labels, np.concatenate([positive, negative])
