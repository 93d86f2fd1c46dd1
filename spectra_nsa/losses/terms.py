"""The terms of the loss stack: named outputs of a batch in, one number out (docs/model.md, section 7).

N texts stand in one (N, ·) tensor: all anchors, then all positives, then any negatives. No term owns parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from sentence_transformers.util import pairwise_angle_sim, pairwise_cos_sim
from torch import Tensor

from spectra_nsa.heads.bridge import code_divergence

DISTIL = 0.03  # the temperature at which similarity distributions are compared
ANCHOR_PREFIXES = (8, 16, 32, 64)


def triplet(anchor_BD: Tensor, positive_BD: Tensor, negatives: Sequence[Tensor], margin: float) -> Tensor:
    """max(0, margin − cos(a, p) + cos(a, n)), mean over the given negatives (Schroff et al. 2015)."""
    near_B = (anchor_BD * positive_BD).sum(-1)
    far = torch.stack([(anchor_BD * negative_BD).sum(-1) for negative_BD in negatives])
    return (margin - near_B + far).clamp_min(0).mean()


def cosent(one_BD: Tensor, other_BD: Tensor, score_B: Tensor, temperature: float) -> Tensor:
    """log(1 + Σ exp((cos_j − cos_i) / τ)) over rows i, j of which i has the higher score (Huang et al. 2024)."""
    return _in_order(pairwise_cos_sim, [one_BD, other_BD], score_B, temperature)


def angle(one_BD: Tensor, other_BD: Tensor, score_B: Tensor, temperature: float) -> Tensor:
    """CoSENT with the angle between vectors whose halves are read as complex numbers (Li and Li 2024, AnglE)."""
    even = one_BD.shape[1] // 2 * 2
    return _in_order(pairwise_angle_sim, [one_BD[:, :even], other_BD[:, :even]], score_B, temperature)


def _in_order(similarity: Any, columns: list[Tensor], score_B: Tensor, temperature: float) -> Tensor:
    loss: Any = CoSENTLoss  # its model is not needed where vectors are there
    value: Tensor = loss(None, 1 / temperature, similarity).compute_loss_from_embeddings(columns, score_B)
    return value


def cosine(one_BD: Tensor, other_BD: Tensor, score_B: Tensor) -> Tensor:
    """Mean squared difference of cosine and score (Reimers and Gurevych 2019)."""
    return F.mse_loss(F.cosine_similarity(one_BD, other_BD), score_B)


def contrastive(one_BD: Tensor, other_BD: Tensor, score_B: Tensor, margin: float) -> Tensor:
    """½ [s d² + (1 − s) max(0, margin − d)²], d = 1 − cos, mean over rows (Hadsell et al. 2006)."""
    far_B = 1 - F.cosine_similarity(one_BD, other_BD)
    return 0.5 * (score_B * far_B.square() + (1 - score_B) * (margin - far_B).clamp_min(0).square()).mean()


def ranking(anchor_BD: Tensor, positive_BD: Tensor, negatives: Sequence[Tensor], temperature: float) -> Tensor:
    """InfoNCE of the ranking vector: each anchor against all positives and all negatives."""
    candidates_CD = torch.cat([positive_BD, *negatives])
    scores_BC = anchor_BD @ candidates_CD.T / temperature
    return F.cross_entropy(scores_BC, torch.arange(len(anchor_BD), device=scores_BC.device))


def matryoshka_angular(semantic_ND: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mean squared difference of the cosines at each prefix from those at full size, which get no gradient."""
    full_NN = (semantic_ND @ semantic_ND.T).detach()
    losses = []
    for size in sizes[1:]:
        prefix_ND = F.normalize(semantic_ND[:, :size], dim=-1)
        losses.append((prefix_ND @ prefix_ND.T - full_NN).square().mean())
    return torch.stack(losses).mean() if losses else semantic_ND.sum() * 0.0


def anchor(anchor_BA: Tensor, positive_BA: Tensor) -> Tensor:
    """−2 E[f(x) · f(x⁺)] + E[(f(x) · f(x⁻))²] (HaoChen et al. 2021), summed over nested prefixes.

    The nesting orders the coordinates by eigenvalue (cf. Deng et al. 2022, NeuralEF; Ryu et al. 2024, NeuralSVD).
    """
    total = anchor_BA.new_zeros(())
    others_BB = ~torch.eye(len(anchor_BA), dtype=torch.bool, device=anchor_BA.device)
    for size in ANCHOR_PREFIXES:
        products_BB = anchor_BA[:, :size] @ positive_BA[:, :size].T
        total = total - 2 * products_BB.diagonal().mean() + products_BB[others_BB].square().mean()
    return total / len(ANCHOR_PREFIXES)


def fast(logits_NB: Tensor, sharpness_W: Tensor, semantic_ND: Tensor, steepness: float) -> Tensor:
    """KL from the in-batch similarity distribution to that of the relaxed codes, summed over the nested widths.

    Args:
        logits_NB: (N, 256).
        sharpness_W: the learned scale of each width.
        semantic_ND: the teacher, unit vectors without gradient.
        steepness: of the tanh that stands for the sign; annealed from 1 to 20.
    """
    soft_NB = torch.tanh(steepness * logits_NB)
    self_NN = torch.eye(len(soft_NB), dtype=torch.bool, device=soft_NB.device)
    return code_divergence(soft_NB, soft_NB, sharpness_W, semantic_ND @ semantic_ND.T, self_NN, DISTIL)


def bridge(decoded_ND: Tensor, target_ND: Tensor) -> Tensor:
    """1 − cosine of what the code decodes to and the fused vector: ties code, semantic and entity together."""
    return 1 - F.cosine_similarity(decoded_ND, target_ND, dim=-1).mean()


def entity(columns: Sequence[Tensor], temperature: float, sizes: Sequence[int]) -> Tensor:
    """InfoNCE of the entity vector as in `ranking`, mean over its sizes.

    Args:
        columns: anchors, positives, any negatives.
        temperature: τ.
        sizes: prefixes.
    """
    losses = []
    for size in sizes:
        anchor_BE, positive_BE, *negatives = (F.normalize(column[:, :size], dim=-1) for column in columns)
        losses.append(ranking(anchor_BE, positive_BE, negatives, temperature))
    return torch.stack(losses).mean()


def anomaly(semantic_ND: Tensor, prototypes_KD: Tensor, kappa: float) -> Tensor:
    """Mean distance to the soft-nearest prototype, and a spectrum of prototypes that does not fall together.

    −log Σ_k exp(κ cos) / κ, plus the log of the mean squared cosine between prototypes (Rényi-2 entropy of their Gram
    spectrum).
    """
    prototypes_KD = F.normalize(prototypes_KD, dim=-1)
    near = -torch.logsumexp(kappa * semantic_ND @ prototypes_KD.T, dim=-1).mean() / kappa
    others_KK = ~torch.eye(len(prototypes_KD), dtype=torch.bool, device=prototypes_KD.device)
    gram_KK = prototypes_KD @ prototypes_KD.T
    return near + 0.1 * (gram_KK[others_KK].square().mean() + 1e-4).log()


def spectral(anchor_BD: Tensor) -> Tensor:
    """log of the mean squared cosine over distinct, unpaired texts: Rényi-2 entropy of the embedding spectrum."""
    others_BB = ~torch.eye(len(anchor_BD), dtype=torch.bool, device=anchor_BD.device)
    return ((anchor_BD @ anchor_BD.T)[others_BB].square().mean() + 1e-8).log()
