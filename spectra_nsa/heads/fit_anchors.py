"""Closed-form fit of the spectral anchors: the minimum of their loss over all pairs (docs/model.md, section 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.heads.anchors import AnchorHead

SMALLEST_VARIANCE = 1e-8  # of unit vectors; below it they count as equal
RIDGE = 1.0  # ridge added to the covariance, as a multiple of its mean eigenvalue


@torch.no_grad()
def fit_anchors(head: AnchorHead, anchors_ND: Tensor, positives_ND: Tensor) -> None:
    """Sets the spectral anchors to the linear map that minimizes the spectral contrastive loss (HaoChen et al. 2021).

    For f(x) = W x and centered texts the loss is −2 tr(W M Wᵀ) + tr((W S Wᵀ)²). S is the covariance of the texts, and
    M their cross-covariance with the matching texts. With A = S^−½ M S^−½, the minimum is W ∝ Qᵀ S^−½, where Q holds
    the leading eigenvectors of A by decreasing eigenvalue. The head computes cosines, so it uses the directions of W's
    rows and ignores their lengths.

    Args:
        head: changed in place. If D is less than 64, only its first D anchors change; if all vectors are equal, none.
        anchors_ND: (N, D), `semantic` of the texts.
        positives_ND: (N, D), `semantic` of the matching texts.
    """
    left_ND, right_ND = (F.normalize(side.double().cpu(), dim=-1) for side in (anchors_ND, positives_ND))
    mean_D = torch.cat([left_ND, right_ND]).mean(0)
    left_ND, right_ND = left_ND - mean_D, right_ND - mean_D
    N, D = left_ND.shape
    texts_DD = (left_ND.T @ left_ND + right_ND.T @ right_ND) / (2 * N)
    matches_DD = (left_ND.T @ right_ND + right_ND.T @ left_ND) / (2 * N)
    if N == 0 or texts_DD.trace() < SMALLEST_VARIANCE:
        return
    texts_DD += RIDGE * texts_DD.trace() / D * torch.eye(D, dtype=torch.float64)
    eigenvalues, eigenvectors = torch.linalg.eigh(texts_DD)
    inverse_root_DD = eigenvectors @ torch.diag(eigenvalues.rsqrt()) @ eigenvectors.T
    leading_DD = torch.linalg.eigh(inverse_root_DD @ matches_DD @ inverse_root_DD)[1].flip(1)
    anchors_AD = F.normalize(leading_DD.T @ inverse_root_DD, dim=-1)[: len(head.anchors.weight)]
    head.anchors.weight[: len(anchors_AD)] = anchors_AD.to(head.anchors.weight)
