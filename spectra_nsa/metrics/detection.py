"""Telling two groups apart by one score: AUROC, and the false alarms at a fixed hit rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError

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


def _joined(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    positive, negative = np.asarray(positive).ravel(), np.asarray(negative).ravel()
    if not len(positive) or not len(negative):
        raise SpectraError("detection needs at least one score on each side.")
    labels = np.concatenate([np.ones(len(positive), dtype=int), np.zeros(len(negative), dtype=int)])
    return labels, np.concatenate([positive, negative])
