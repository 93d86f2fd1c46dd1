"""Fitting the anomaly head to in-domain texts and calibrating its p-value (docs/model.md, section 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.heads.anomaly import AnomalyHead

MIN_TEXTS = 20
MIN_TEXTS_FOR_CLUSTERS = 1_000  # with fewer, covariances cannot be estimated, and each text is a prototype
MIN_PROTOTYPES, MAX_PROTOTYPES = 16, 300
# Fraction of the held-out variance that clusters must explain. Below it, Mahalanobis distances to them are noise, and
# many prototypes work better than few. Intents reach 0.5; posts of a few newsgroups 0.1 to 0.2.
MIN_EXPLAINED = 0.3
MAX_DENSITY_PROTOTYPES = 1_500
# Fraction of the held-out variance within clusters. Below it, the texts are near-copies of a few, and Mahalanobis
# distances would measure rounding errors.
SMALLEST_SPREAD = 1e-4
SMALLEST_VARIANCE = 1e-8  # of unit vectors


@dataclass(frozen=True, kw_only=True)
class AnomalyFit:
    """A fitted anomaly head with its figures.

    Attributes:
        head: the fitted head.
        texts: number of texts that it was fitted on.
        prototypes: K.
        calibration: number of held-out texts that the p-value is computed from.
        false_alarms: fraction of further held-out texts with a p-value of at most the level.
        checked: number of these further texts.
    """

    head: AnomalyHead
    texts: int
    prototypes: int
    calibration: int
    false_alarms: float
    checked: int


def default_prototypes(texts: int) -> int:
    """Returns a tenth of the number of texts, from 16 to 300."""
    return max(MIN_PROTOTYPES, min(MAX_PROTOTYPES, texts // 10))


def _split_size(texts: int) -> int:
    """Returns the number of texts in the calibration split, and in the split that checks it."""
    return max(texts // 10, MIN_TEXTS // 4)


def check_fit(texts: int, prototypes: int | None, level: float) -> None:
    """Checks that there are enough texts for a fit, before any of them is encoded.

    Raises:
        SpectraError: there are too few, or too few for the level: with n calibration texts, no p-value is below
            1 / (n + 1).
        UsageError: there are too few for the number of prototypes.
    """
    if texts < MIN_TEXTS:
        raise SpectraError(f"too few texts to fit an anomaly score to ({texts:,}); give at least {MIN_TEXTS}.")
    calibration = _split_size(texts)
    if 1 / (calibration + 1) > level:
        needed = 10 * math.ceil(1 / level - 1)
        raise SpectraError(
            f"{texts} texts leave {calibration} for calibration, so no p-value is below {1 / (calibration + 1):.3g} "
            f"and no text could be flagged at level {level:g}. Give at least {needed:,} texts or a higher level."
        )
    if prototypes is not None and texts < MIN_TEXTS_FOR_CLUSTERS:
        raise UsageError(
            f"the number of prototypes can only be set with at least {MIN_TEXTS_FOR_CLUSTERS:,} texts; "
            f"with {texts}, each text is a prototype. Leave it out."
        )
    if prototypes is not None and prototypes > (texts - 2 * calibration) // 2:
        raise UsageError(
            f"{prototypes} prototypes are too many for {texts:,} texts: at most {(texts - 2 * calibration) // 2:,}."
        )


def fit_anomaly(vectors_ND: Tensor, *, prototypes: int | None = None, level: float = 0.05, seed: int = 0) -> AnomalyFit:
    """Fits the head on 80 % of the texts, calibrates it on 10 %, and measures false alarms on the last 10 %.

    Args:
        vectors_ND: (N, D), `semantic` of the texts, unit length.
        prototypes: K. ``None`` for `default_prototypes`, or for half the number of fitted texts (up to 1,500) if
            their clusters are loose.
        level: false-alarm rate at which `is_ood` is true.
        seed: seed of the split and of the clusters.

    Raises:
        SpectraError: see `check_fit`.
        UsageError: see `check_fit`.
    """
    N = len(vectors_ND)
    check_fit(N, prototypes, level)
    permutation_N = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    split_size = _split_size(N)
    vectors_ND = F.normalize(vectors_ND.detach().float().cpu(), dim=-1)
    check, calibrate, fit = (
        vectors_ND[rows] for rows in permutation_N.split([split_size, split_size, N - 2 * split_size])
    )
    if N < MIN_TEXTS_FOR_CLUSTERS:
        head = _density_head(fit, torch.full((len(fit),), -math.log(len(fit))), split_size)
    else:
        head = _clustered(fit, calibrate, prototypes, seed)
    with torch.no_grad():
        head.calibration.copy_(head(calibrate).sort().values)
        false_alarms = float((head.p_value(head(check)) <= level).float().mean())
    return AnomalyFit(
        head=head,
        texts=len(fit),
        prototypes=head.prototypes.out_features,
        calibration=split_size,
        false_alarms=false_alarms,
        checked=split_size,
    )


def _clustered(fit: Tensor, calibrate: Tensor, prototypes: int | None, seed: int) -> AnomalyHead:
    """Fits prototypes, or a density if the clusters are loose (`MIN_EXPLAINED`) or points (`SMALLEST_SPREAD`).

    Raises:
        UsageError: there are fewer distinct vectors than prototypes.
    """
    from scipy.spatial.distance import cdist

    points, held_out = (values.numpy().astype(np.float64) for values in (fit, calibrate))
    distinct = len(np.unique(points, axis=0))
    if prototypes is not None and prototypes > distinct:
        raise UsageError(
            f"{prototypes} prototypes are too many: the model gives {len(points):,} texts only {distinct:,} distinct "
            "vectors. Leave the number out, or give more varied texts."
        )
    centers, labels = _clusters(points, prototypes or min(default_prototypes(len(points)), distinct), seed)
    variance = max(np.square(held_out - points.mean(0)).sum(1).mean(), SMALLEST_VARIANCE)
    unexplained = np.square(cdist(held_out, centers).min(1)).mean()
    if SMALLEST_SPREAD * variance < unexplained <= (1 - MIN_EXPLAINED) * variance:
        return _prototype_head(points, centers, labels, calibrate)
    if prototypes is None and unexplained > SMALLEST_SPREAD * variance:
        centers, labels = _clusters(points, min(MAX_DENSITY_PROTOTYPES, len(points) // 2, distinct), seed)
    return _density_head(torch.from_numpy(centers).float(), _log_shares(labels, len(centers)), len(calibrate))


def _clusters(points: np.ndarray, K: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns cluster centers, (K, D), and the cluster of each point, (N,)."""
    from sklearn.cluster import KMeans

    clusters = KMeans(K, n_init=1, random_state=seed).fit(points)
    return clusters.cluster_centers_, clusters.labels_


def _log_shares(labels: np.ndarray, K: int) -> Tensor:
    """Returns the logarithm of each cluster's fraction of the points, (K,)."""
    return torch.from_numpy(np.log(np.maximum(np.bincount(labels, minlength=K) / len(labels), 1e-9)))


@torch.no_grad()
def _density_head(centers_KD: Tensor, log_share_K: Tensor, calibration: int) -> AnomalyHead:
    """Builds a head that scores by density."""
    head = AnomalyHead(centers_KD.shape[1], len(centers_KD), calibration, "density")
    head.prototypes.weight.copy_(F.normalize(centers_KD, dim=-1))
    head.log_share.copy_(log_share_K)
    return head


@torch.no_grad()
def _prototype_head(points: np.ndarray, centers: np.ndarray, labels: np.ndarray, calibrate: Tensor) -> AnomalyHead:
    """Builds a head that scores by Mahalanobis distances and density, standardized on the calibration texts."""
    head = AnomalyHead(points.shape[1], len(centers), len(calibrate), "prototypes")
    head.centres.copy_(torch.from_numpy(centers))
    head.prototypes.weight.copy_(F.normalize(torch.from_numpy(centers).float(), dim=-1))
    head.log_share.copy_(_log_shares(labels, len(centers)))
    head.mean.copy_(torch.from_numpy(points.mean(0)))
    head.within.copy_(_whitening(points - centers[labels]))
    head.total.copy_(_whitening(points - points.mean(0)))
    relative = head.relative_distance(calibrate)
    density = head(calibrate) - relative  # shift is 0 and spread 1 here, so the score is the sum of both
    head.shift.copy_(torch.stack([relative.mean(), density.mean()]))
    head.spread.copy_(torch.stack([relative.std(), density.std()]).clamp_min(1e-6))
    return head


def _whitening(residuals: np.ndarray) -> Tensor:
    """Returns W with Wᵀ W = the inverse of the shrunk covariance (Ledoit and Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    return torch.from_numpy(np.linalg.cholesky(np.linalg.inv(covariance)).T.copy()).float()
