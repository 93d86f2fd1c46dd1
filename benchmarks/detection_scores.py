"""Out-of-domain scores that `detection.py` compares with ours. They take unit vectors; larger = more anomalous.

Constants come from the papers or from the sizes of the data; none was tuned on anything except the texts to fit. Each
covariance is shrunk like ours (Ledoit and Wolf 2004), while the papers use the plain one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # of the logistic regression; selected on a tenth of the texts


@dataclass(frozen=True, kw_only=True)
class Score:
    """A fitted score.

    Attributes:
        name: the name in the table.
        of: maps (N, D) unit vectors to (N,) scores.
        products: the number of multiply-adds per text.
    """

    name: str
    of: Callable[[np.ndarray], np.ndarray]
    products: int


def all_scores(train_ND: np.ndarray, labels: np.ndarray | None, *, seed: int = 0) -> list[Score]:
    """Returns all scores, fitted. Scores that use classes are included only if there are labels.

    Args:
        train_ND: the vectors of normal texts.
        labels: the class of each text; ``None`` if the texts are not labeled.
        seed: the seed of the split that selects the strength of the logistic regression.
    """
    one = np.zeros(len(train_ND), dtype=int)
    scores = [nearest(train_ND, 1), nearest(train_ND, 5), mahalanobis(train_ND, one, "Mahalanobis, one Gaussian")]
    if labels is None:
        return [*scores, residual(train_ND)]
    weight_CD, bias_C = logistic(train_ND, labels, seed)
    return [
        *scores,
        mahalanobis(train_ND, labels, "Mahalanobis, classes"),
        relative(train_ND, labels),
        residual(train_ND),
        virtual_logit(train_ND, weight_CD, bias_C),
        most_probable(weight_CD, bias_C),
        energy(weight_CD, bias_C),
    ]


def nearest(train_ND: np.ndarray, k: int) -> Score:
    """Uses the distance to the k-th nearest fitted text (Sun et al. 2022, arXiv:2204.06507, section 3: r_k).

    For unit vectors the distance decreases with the cosine, so minus the k-th largest cosine gives the same order.
    """

    def of(z_BD: np.ndarray) -> np.ndarray:
        return -np.partition(z_BD @ train_ND.T, -k, axis=1)[:, -k]

    return Score(name=f"kNN, k = {k}", of=of, products=train_ND.size)


def _gaussian(train_ND: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Computes min_c (z − μ_c)ᵀ Σ⁻¹ (z − μ_c), with shared Σ (Lee et al. 2018, arXiv:1807.03888, equations 1 and 2)."""
    _, classes = np.unique(labels, return_inverse=True)
    points = train_ND.astype(np.float64)
    means_CD = np.stack([points[classes == c].mean(0) for c in range(classes.max() + 1)])
    covariance, _ = ledoit_wolf(points - means_CD[classes], assume_centered=True)
    whiten_DD = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
    center_D = points.mean(0)
    white_CD = ((means_CD - center_D) @ whiten_DD).astype(np.float32)
    squares_C = np.square(white_CD).sum(1)

    def of(z_BD: np.ndarray) -> np.ndarray:
        white_BD = (z_BD - center_D).astype(np.float32) @ whiten_DD
        return np.square(white_BD).sum(1) + (squares_C - 2 * white_BD @ white_CD.T).min(1)

    return of


def mahalanobis(train_ND: np.ndarray, labels: np.ndarray, name: str) -> Score:
    """Uses the squared Mahalanobis distance to the nearest class (Lee et al. 2018)."""
    size, classes = train_ND.shape[1], len(np.unique(labels))
    return Score(name=name, of=_gaussian(train_ND, labels), products=size * (size + classes))


def relative(train_ND: np.ndarray, labels: np.ndarray) -> Score:
    """Uses min_c MD_c − MD_0, with MD_0 to one Gaussian of all texts (Ren et al. 2021, arXiv:2106.09022, section 3)."""
    by_class, overall = _gaussian(train_ND, labels), _gaussian(train_ND, np.zeros(len(train_ND), dtype=int))
    size, classes = train_ND.shape[1], len(np.unique(labels))
    return Score(
        name="relative Mahalanobis, classes",
        of=lambda z_BD: by_class(z_BD) - overall(z_BD),
        products=size * (2 * size + classes),
    )


def _rest(train_ND: np.ndarray, origin_D: np.ndarray) -> np.ndarray:
    """Returns an orthonormal basis (D, D/2) of the complement of the leading half of the directions.

    Half, because the 512 dimensions of the paper (Wang et al. 2022, section 5) exceed the width of the vectors.
    """
    shifted_ND = train_ND.astype(np.float64) - origin_D
    _, directions_DD = np.linalg.eigh(shifted_ND.T @ shifted_ND)  # smallest first
    return directions_DD[:, : train_ND.shape[1] - train_ND.shape[1] // 2].astype(np.float32)


def residual(train_ND: np.ndarray) -> Score:
    """Uses ‖x^P⊥‖, the part of z outside the principal subspace around the mean (Wang et al. 2022, equation 4)."""
    origin_D = train_ND.mean(0)
    basis_DR = _rest(train_ND, origin_D)
    return Score(
        name="residual",
        of=lambda z_BD: np.linalg.norm((z_BD - origin_D) @ basis_DR, axis=1),
        products=basis_DR.size,
    )


def virtual_logit(train_ND: np.ndarray, weight_CD: np.ndarray, bias_C: np.ndarray) -> Score:
    """Uses α ‖x^P⊥‖ − log Σ_c exp(l_c): ViM (Wang et al. 2022, arXiv:2203.10807, section 4), in the same order.

    α = Σ max_c l_c / Σ ‖x^P⊥‖ over the fitted texts (equation 6); the origin is −W⁺ b.
    """
    origin_D = (-np.linalg.pinv(weight_CD.astype(np.float64)) @ bias_C).astype(np.float32)
    basis_DR = _rest(train_ND, origin_D)

    def outside(z_BD: np.ndarray) -> np.ndarray:
        return np.linalg.norm((z_BD - origin_D) @ basis_DR, axis=1)

    alpha = (train_ND @ weight_CD.T + bias_C).max(1).mean() / outside(train_ND).mean()
    return Score(
        name="ViM",
        of=lambda z_BD: alpha * outside(z_BD) - logsumexp(z_BD @ weight_CD.T + bias_C, axis=1),
        products=basis_DR.size + weight_CD.size,
    )


def most_probable(weight_CD: np.ndarray, bias_C: np.ndarray) -> Score:
    """Uses −max_c softmax_c(l): MSP (Hendrycks and Gimpel 2017, arXiv:1610.02136, section 3)."""

    def of(z_BD: np.ndarray) -> np.ndarray:
        logits_BC = z_BD @ weight_CD.T + bias_C
        return -np.exp(logits_BC.max(1) - logsumexp(logits_BC, axis=1))

    return Score(name="MSP", of=of, products=weight_CD.size)


def energy(weight_CD: np.ndarray, bias_C: np.ndarray) -> Score:
    """Uses −log Σ_c exp(l_c), T = 1 (Liu et al. 2020, arXiv:2010.03759, equation 4)."""
    return Score(
        name="energy",
        of=lambda z_BD: -logsumexp(z_BD @ weight_CD.T + bias_C, axis=1),
        products=weight_CD.size,
    )


def logistic(train_ND: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns W (C, D) and b of a logistic regression. Its strength is selected by the log loss on a held-out tenth."""
    order = np.random.default_rng(seed).permutation(len(train_ND))
    held_out, rest = np.split(order, [len(order) // 10])

    def fitted(strength: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=1000).fit(train_ND[rows], labels[rows])

    known = held_out[np.isin(labels[held_out], labels[rest])]

    def loss(strength: float) -> float:
        model = fitted(strength, rest)
        return log_loss(labels[known], model.predict_proba(train_ND[known]), labels=model.classes_)

    best = fitted(min(STRENGTHS, key=loss), order)
    weight_CD, bias_C = best.coef_, best.intercept_
    if len(weight_CD) == 1:  # two classes: scikit-learn keeps one row
        weight_CD, bias_C = np.concatenate([-weight_CD, weight_CD]) / 2, np.concatenate([-bias_C, bias_C]) / 2
    return weight_CD.astype(np.float32), bias_C.astype(np.float32)
