"""Nearest-neighbor classification: how well an embedding predicts labels without any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.bootstrap import RESAMPLES, statistic_draws

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 32_000_000  # similarities in memory at a time


@dataclass(frozen=True, kw_only=True)
class KNNScores:
    """The figures of one classification.

    Attributes:
        accuracy: the fraction of test texts with the correct label.
        macro_f1: F1 averaged over the labels that occur in the test set or among the predictions.
        correct: (N_test,) float64, 1 if the label is correct; the chance of it if labels are tied.
        predicted: (N_test,) labels; of tied ones the first in alphabetical order.
        wanted: (N_test,) the correct labels, as text.
    """

    accuracy: float
    macro_f1: float
    correct: np.ndarray
    predicted: np.ndarray
    wanted: np.ndarray


def knn_classification(
    train: np.ndarray, train_labels: Sequence[object], test: np.ndarray, test_labels: Sequence[object], *, k: int = 10
) -> KNNScores:
    """Assigns each test row the label with the largest Σ max(cos, 0) over its k nearest training rows by cosine.

    Every training row that is as near as the k-th counts as a neighbor too, so the order of the rows decides nothing.
    If m labels share the largest sum, one of them the correct one, the row counts 1/m as correct.

    Args:
        train: (N, D).
        train_labels: N labels, compared as text.
        test: (M, D).
        test_labels: M labels. A label that no training row has counts as an error.
        k: the number of neighbors; at most N are used.

    Raises:
        SpectraError: there are no training or no test rows, or labels and rows differ in number.
    """
    import numpy as np
    from sklearn.metrics import f1_score

    if not len(train) or not len(test):
        raise SpectraError("k-NN classification needs at least one training text and one test text.")
    if len(train) != len(train_labels) or len(test) != len(test_labels):
        raise SpectraError("k-NN classification needs one label for each row.")
    known, wanted = np.array([str(x) for x in train_labels]), np.array([str(x) for x in test_labels])
    labels, code = np.unique(known, return_inverse=True)
    votes = _votes(train, code, test, len(labels), k)
    best = votes >= votes.max(axis=1, keepdims=True) * (1 - 1e-9)  # equal sums may differ by rounding
    predicted = labels[best.argmax(axis=1)]
    correct = (best & (labels == wanted[:, None])).sum(axis=1) / best.sum(axis=1)
    macro = float(f1_score(wanted, predicted, average="macro", zero_division=0))
    return KNNScores(
        accuracy=float(correct.mean()), macro_f1=macro, correct=correct, predicted=predicted, wanted=wanted
    )


def _votes(train: np.ndarray, code: np.ndarray, test: np.ndarray, labels: int, k: int) -> np.ndarray:
    """Returns (M, labels): the sum of max(cos, 1e-9) over the neighbors of each label, computed in blocks of rows."""
    import numpy as np

    one_hot = np.eye(labels)[code]
    train, test = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (train, test))
    step = max(1, _BLOCK // len(train))
    votes = []
    for start in range(0, len(test), step):
        cosine = test[start : start + step] @ train.T
        kth = np.partition(cosine, -min(k, len(train)), axis=1)[:, -min(k, len(train))]
        weight = np.where(cosine >= kth[:, None], np.maximum(cosine, 1e-9), 0)
        votes.append(weight @ one_hot)
    return np.concatenate(votes)


def macro_f1_draws(
    wanted: np.ndarray, predicted: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Returns the macro F1 in each bootstrap draw of the test rows: (resamples,).

    F1 of a label = 2 · correct / (wanted + predicted). As in `knn_classification`, a draw averages over the labels that
    occur in it.

    Args:
        wanted: (N,) labels.
        predicted: (N,) labels.
        resamples: the number of draws.
        seed: the seed of the draws. The same N and seed draw the same rows.
    """
    import numpy as np

    labels, codes = np.unique(np.concatenate([wanted, predicted]), return_inverse=True)
    truth, guess = np.split(codes, 2)

    def macro_f1(rows: np.ndarray) -> float:
        t, g = truth[rows], guess[rows]
        total = np.bincount(t, minlength=len(labels)) + np.bincount(g, minlength=len(labels))
        hits = np.bincount(t[t == g], minlength=len(labels))
        return float((2 * hits[total > 0] / total[total > 0]).mean())

    return statistic_draws(len(truth), lambda rows: np.array([macro_f1(row) for row in rows]), resamples, seed)
