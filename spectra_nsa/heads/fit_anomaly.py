"""Fitting the anomaly head to texts of a domain, and calibrating its p-value (docs/model.md, section 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.heads.anomaly import AnomalyHead

FEW = 1_000  # texts below which covariances are not to be had: each is a prototype of the density
MOST_PROTOTYPES, FEWEST_PROTOTYPES = 300, 16
# Where clusters explain less of the spread of held-out texts, they are none: Mahalanobis distances to them are noise,
# and many prototypes tell more than few. Intents: 0.5; posts of a few newsgroups: 0.1 to 0.2.
TIGHT = 0.3
MOST_LOOSE = 1_500
SMALLEST = 20


@dataclass(frozen=True, kw_only=True)
class AnomalyFit:
    """What a fit says of itself.

    Attributes:
        head: the fitted head.
        texts: fitted on, after the held-out ones were taken away.
        prototypes: K.
        calibration: held-out texts the p-value is counted among.
        false_alarms: the share of further held-out texts, seen by neither, that p ≤ level calls strange.
        checked: how many those are.
    """

    head: AnomalyHead
    texts: int
    prototypes: int
    calibration: int
    false_alarms: float
    checked: int


def default_prototypes(texts: int) -> int:
    """min(300, texts / 10), at least 16."""
    return max(FEWEST_PROTOTYPES, min(MOST_PROTOTYPES, texts // 10))


def _held_out(texts: int) -> int:
    return max(texts // 10, SMALLEST // 4)


def check_fit(texts: int, prototypes: int | None, level: float) -> None:
    """That so many texts are enough, before any of them is encoded.

    Raises:
        SpectraError: they are too few, or too few for the level: with n held out no p-value is below 1 / (n + 1).
        UsageError: more prototypes than they can be fitted to.
    """
    if texts < SMALLEST:
        raise SpectraError(f"{texts} texts are too few to know what is normal; give at least {SMALLEST}.")
    held = _held_out(texts)
    if 1 / (held + 1) > level:
        needed = 10 * math.ceil(1 / level - 1)
        raise SpectraError(
            f"{texts} texts leave {held} to calibrate the p-value with, so that it is never below {1 / (held + 1):.3g} "
            f"and nothing would ever be called strange at {level:g}. Give at least {needed:,} texts, or a larger level."
        )
    if prototypes is not None and texts < FEW:
        raise UsageError(f"prototypes need at least {FEW:,} texts; with {texts} each text is one. Leave them out.")
    if prototypes is not None and prototypes > (texts - 2 * held) // 2:
        raise UsageError(
            f"{prototypes} prototypes are too many for {texts:,} texts: at most {(texts - 2 * held) // 2:,}."
        )


def fit_anomaly(vectors_ND: Tensor, *, prototypes: int | None = None, level: float = 0.05, seed: int = 0) -> AnomalyFit:
    """Fits on 80 % of the texts, calibrates on 10 %, and checks the false alarms on the last 10 %.

    Args:
        vectors_ND: `semantic` of the texts, unit length.
        prototypes: K; ``None`` for `default_prototypes`, or half as many as texts fitted on (up to 1,500) where the
            clusters of those are loose.
        level: the false-alarm rate at which `is_ood` speaks.
        seed: of the split and the clusters.

    Raises:
        SpectraError: too few texts.
        UsageError: see `check_fit`.
    """
    N = len(vectors_ND)
    check_fit(N, prototypes, level)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    held = _held_out(N)
    vectors_ND = F.normalize(vectors_ND.detach().float().cpu(), dim=-1)
    check, calibrate, fit = (vectors_ND[rows] for rows in order.split([held, held, N - 2 * held]))
    if N < FEW:
        head = _density(fit, torch.full((len(fit),), -math.log(len(fit))), held)
    else:
        head = _clustered(fit, calibrate, prototypes, seed)
    with torch.no_grad():
        head.calibration.copy_(head(calibrate).sort().values)
        false_alarms = float((head.p_value(head(check)) <= level).float().mean())
    return AnomalyFit(
        head=head,
        texts=len(fit),
        prototypes=head.prototypes.out_features,
        calibration=held,
        false_alarms=false_alarms,
        checked=held,
    )


def _clustered(fit: Tensor, calibrate: Tensor, prototypes: int | None, seed: int) -> AnomalyHead:
    """A head of the method that the texts want: see `TIGHT`."""
    from scipy.spatial.distance import cdist

    points, held = (values.numpy().astype(np.float64) for values in (fit, calibrate))
    centres, labels = _clusters(points, prototypes or default_prototypes(len(points)), seed)
    spread = np.square(held - points.mean(0)).sum(1).mean()
    left_over = np.square(cdist(held, centres).min(1)).mean()
    if left_over <= (1 - TIGHT) * spread:
        return _with_prototypes(points, centres, labels, calibrate)
    if prototypes is None:
        centres, labels = _clusters(points, min(MOST_LOOSE, len(points) // 2), seed)
    return _density(torch.from_numpy(centres).float(), _log_shares(labels, len(centres)), len(calibrate))


def _clusters(points: np.ndarray, K: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (K, D), and the cluster of each point."""
    from sklearn.cluster import KMeans

    clusters = KMeans(K, n_init=1, random_state=seed).fit(points)
    return clusters.cluster_centers_, clusters.labels_


def _log_shares(labels: np.ndarray, K: int) -> Tensor:
    return torch.from_numpy(np.log(np.maximum(np.bincount(labels, minlength=K) / len(labels), 1e-9)))


@torch.no_grad()
def _density(centres_KD: Tensor, log_share_K: Tensor, calibration: int) -> AnomalyHead:
    head = AnomalyHead(centres_KD.shape[1], len(centres_KD), calibration, "density")
    head.prototypes.weight.copy_(F.normalize(centres_KD, dim=-1))
    head.log_share.copy_(log_share_K)
    return head


@torch.no_grad()
def _with_prototypes(points: np.ndarray, centres: np.ndarray, labels: np.ndarray, calibrate: Tensor) -> AnomalyHead:
    head = AnomalyHead(points.shape[1], len(centres), len(calibrate), "prototypes")
    head.centres.copy_(torch.from_numpy(centres))
    head.prototypes.weight.copy_(F.normalize(torch.from_numpy(centres).float(), dim=-1))
    head.log_share.copy_(_log_shares(labels, len(centres)))
    head.mean.copy_(torch.from_numpy(points.mean(0)))
    head.within.copy_(_whitening(points - centres[labels]))
    head.total.copy_(_whitening(points - points.mean(0)))
    relative = head.relative_distance(calibrate)
    far = head(calibrate) - relative  # shift 0 and spread 1 so far: the sum of both
    head.shift.copy_(torch.stack([relative.mean(), far.mean()]))
    head.spread.copy_(torch.stack([relative.std(), far.std()]).clamp_min(1e-6))
    return head


def _whitening(residuals: np.ndarray) -> Tensor:
    """W with Wᵀ W = the inverse of the shrunk covariance (Ledoit and Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    return torch.from_numpy(np.linalg.cholesky(np.linalg.inv(covariance)).T.copy()).float()
