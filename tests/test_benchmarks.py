"""The baseline scores of the detection benchmark against independent formulas: a wrong baseline is easily beaten."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

CLASSES, SIZE = 4, 16


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("detection_scores")


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training vectors, their classes, and test vectors, all of length 1."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 300)
    train = rng.normal(size=(CLASSES, SIZE))[labels] + rng.normal(size=(300, SIZE))
    other = rng.normal(size=(9, SIZE))
    unit = [(side / np.linalg.norm(side, axis=1, keepdims=True)).astype(np.float32) for side in (train, other)]
    return unit[0], labels, unit[1]


def test_distances_to_texts_and_classes(scores: Any, points: Any) -> None:
    train, labels, other = points
    distances = np.sort(np.linalg.norm(other[:, None] - train[None], axis=2), axis=1)
    for k in (1, 5):
        np.testing.assert_allclose(np.sqrt(2 + 2 * scores.nearest(train, k).of(other)), distances[:, k - 1], atol=1e-5)
    means = np.stack([train[labels == label].mean(0, dtype=np.float64) for label in range(CLASSES)])
    middle = train.mean(0, dtype=np.float64)
    within, total = (
        LedoitWolf(assume_centered=True).fit(residuals).get_precision()
        for residuals in (train - means[labels], train - middle)
    )
    nearest_class = np.array([min((z - mean) @ within @ (z - mean) for mean in means) for z in other])
    overall = np.array([(z - middle) @ total @ (z - middle) for z in other])
    np.testing.assert_allclose(scores.mahalanobis(train, labels, "").of(other), nearest_class, rtol=1e-4)
    np.testing.assert_allclose(scores.relative(train, labels).of(other), nearest_class - overall, atol=1e-3)


def test_residual_outside_the_principal_directions(scores: Any, points: Any) -> None:
    train, _, other = points
    pca = PCA(SIZE // 2).fit(train)
    residual = np.linalg.norm(other - pca.inverse_transform(pca.transform(other)), axis=1)
    np.testing.assert_allclose(scores.residual(train).of(other), residual, atol=1e-5)


def test_scores_from_a_classifier(scores: Any, points: Any) -> None:
    train, labels, other = points
    weight, bias = scores.logistic(train, labels, 0)
    assert (np.argmax(train @ weight.T + bias, axis=1) == labels).mean() > 0.6
    e = np.exp(other @ weight.T + bias)
    np.testing.assert_allclose(scores.most_probable(weight, bias).of(other), -(e.T / e.sum(1)).max(0), atol=1e-5)
    np.testing.assert_allclose(scores.energy(weight, bias).of(other), -np.log(e.sum(1)), atol=1e-5)
    origin = -np.linalg.pinv(weight) @ bias
    _, _, directions = np.linalg.svd(train - origin, full_matrices=False)
    leading = directions[: SIZE // 2]

    def outside(z: np.ndarray) -> np.ndarray:
        return np.linalg.norm((z - origin) - (z - origin) @ leading.T @ leading, axis=1)

    virtual = np.exp((train @ weight.T + bias).max(1).sum() / outside(train).sum() * outside(other))
    found = 1 / (1 + np.exp(-scores.virtual_logit(train, weight, bias).of(other)))  # the paper's softmax
    np.testing.assert_allclose(found, virtual / (virtual + e.sum(1)), atol=1e-4)
