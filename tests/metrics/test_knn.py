from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics import knn
from spectra_nsa.metrics.knn import knn_classification, macro_f1_draws

TRAIN = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
LABELS = ["x", "x", "y", "y"]


def test_worked_example() -> None:
    test = np.array([[5.0, 1.0], [1.0, 4.0], [1.0, 3.0]])
    scores = knn_classification(TRAIN, LABELS, test, ["x", "y", "x"], k=2)
    assert list(scores.predicted) == ["x", "y", "y"]
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2)
    np.testing.assert_array_equal(scores.correct, [1, 1, 0])


def test_two_near_neighbors_outweigh_three_distant_ones() -> None:
    angles = np.deg2rad([5, 8, 75, 76, 77])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = knn_classification(train, ["near", "near", "far", "far", "far"], np.array([[1.0, 0.0]]), ["near"], k=5)
    assert scores.accuracy == 1


def test_unseen_label_is_an_error_and_k_is_capped() -> None:
    assert knn_classification(TRAIN, LABELS, TRAIN[:1], ["z"], k=50).accuracy == 0


def test_refusals() -> None:
    with pytest.raises(SpectraError, match="at least one"):
        knn_classification(TRAIN, LABELS, TRAIN[:0], [])
    with pytest.raises(SpectraError, match="one label"):
        knn_classification(TRAIN, LABELS[:2], TRAIN, LABELS)


def test_macro_f1_draws_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    wanted, predicted = rng.choice(list("abcd"), 30), rng.choice(list("abce"), 30)
    rows = np.random.default_rng(0).integers(0, 30, size=(5, 30))
    expected = [f1_score(wanted[row], predicted[row], average="macro", zero_division=0) for row in rows]
    assert macro_f1_draws(wanted, predicted, resamples=5) == pytest.approx(expected)


def test_it_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    train, test, labels = rng.normal(size=(60, 5)), rng.normal(size=(40, 5)), rng.choice(list("abc"), 60)
    weights = lambda distance: np.maximum(1.0 - distance, 1e-9)  # noqa: E731
    reference = KNeighborsClassifier(7, metric="cosine", weights=weights).fit(train, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "_BLOCK", 200)
        scores = knn_classification(train, list(labels), test, ["a"] * 40, k=7)
    np.testing.assert_array_equal(scores.predicted, reference.predict(test))


def test_equal_neighbors_all_vote_whatever_their_order() -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        labels = [["x", "x", "y", "z"][at] for at in order]
        scores = knn_classification(np.ones((4, 2)), labels, np.ones((1, 2)), ["x"], k=1)
        assert scores.accuracy == 1
        even = knn_classification(np.ones((2, 2)), [labels[0], "w"], np.ones((1, 2)), ["w"], k=1)
        assert even.accuracy == pytest.approx(1 / 2)
