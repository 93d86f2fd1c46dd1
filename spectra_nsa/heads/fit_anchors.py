"""The anchors in closed form: what their loss would find if it saw all pairs at once (docs/model.md, section 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.heads.anchors import AnchorHead

RIDGE = 1.0  # added to the covariance, in mean eigenvalues


@torch.no_grad()
def fit_anchors(head: AnchorHead, anchors_ND: Tensor, positives_ND: Tensor) -> None:
    """Sets the anchors to the linear map that minimises the spectral contrastive loss (HaoChen et al. 2021).

    For f(x) = W x and centred texts the loss is −2 tr(W M Wᵀ) + tr((W S Wᵀ)²), S the covariance of texts and M that of
    texts with their matches. With A = S^−½ M S^−½ its minimum is at the leading eigenvectors Q of A: W ∝ Qᵀ S^−½, in
    the order of their eigenvalues. The head's cosines take the directions of W's rows and leave their lengths.

    Args:
        head: changed in place; where D is under 64, only its first D anchors.
        anchors_ND: `semantic` of texts, (N, D).
        positives_ND: of the texts that match them, (N, D).
    """
    left_ND, right_ND = (F.normalize(side.double().cpu(), dim=-1) for side in (anchors_ND, positives_ND))
    mean_D = torch.cat([left_ND, right_ND]).mean(0)
    left_ND, right_ND = left_ND - mean_D, right_ND - mean_D
    N, D = left_ND.shape
    texts_DD = (left_ND.T @ left_ND + right_ND.T @ right_ND) / (2 * N)
    matches_DD = (left_ND.T @ right_ND + right_ND.T @ left_ND) / (2 * N)
    texts_DD += RIDGE * texts_DD.trace() / D * torch.eye(D, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(texts_DD)
    root_DD = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    leading_DD = torch.linalg.eigh(root_DD @ matches_DD @ root_DD)[1].flip(1)
    found_AD = F.normalize(leading_DD.T @ root_DD, dim=-1)[: len(head.anchors.weight)]
    head.anchors.weight[: len(found_AD)] = found_AD.to(head.anchors.weight)
