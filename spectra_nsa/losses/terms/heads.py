"""Terms of the heads: spectral anchors, binary codes (fast and bridge), entity vector, anomaly prototypes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.heads.anomaly import KAPPA
from spectra_nsa.heads.bridge import code_divergence
from spectra_nsa.losses.terms.hard_negatives import ranking
from spectra_nsa.losses.terms.term import Term, TermBatch

CODE_TEMPERATURE = 0.03  # at which the similarity distributions of codes and vectors are compared
MAX_STEEPNESS = 20.0  # of the tanh that stands for the sign of a code, at the end
ANCHOR_PREFIXES = (8, 16, 32, 64)


def anchor(anchor_BA: Tensor, positive_BA: Tensor) -> Tensor:
    """Computes −2 E[f(x) · f(x⁺)] + E[(f(x) · f(x⁻))²] (HaoChen et al. 2021), mean over nested prefixes.

    The nesting orders the coordinates by eigenvalue (cf. Deng et al. 2022, NeuralEF; Ryu et al. 2024, NeuralSVD).
    """
    total = anchor_BA.new_zeros(())
    others_BB = ~torch.eye(len(anchor_BA), dtype=torch.bool, device=anchor_BA.device)
    for size in ANCHOR_PREFIXES:
        products_BB = anchor_BA[:, :size] @ positive_BA[:, :size].T
        total = total - 2 * products_BB.diagonal().mean() + products_BB[others_BB].square().mean()
    return total / len(ANCHOR_PREFIXES)


def fast(logits_NB: Tensor, sharpness_W: Tensor, semantic_ND: Tensor, steepness: float) -> Tensor:
    """Computes the KL divergence from the in-batch similarities to those of the relaxed codes, summed over widths.

    Args:
        logits_NB: (N, 256).
        sharpness_W: the learned scale of each width's similarity.
        semantic_ND: the targets, unit vectors without gradient.
        steepness: of the tanh that stands for the sign; annealed from 1 to 20.
    """
    soft_NB = torch.tanh(steepness * logits_NB)
    self_NN = torch.eye(len(soft_NB), dtype=torch.bool, device=soft_NB.device)
    return code_divergence(soft_NB, soft_NB, sharpness_W, semantic_ND @ semantic_ND.T, self_NN, CODE_TEMPERATURE)


def bridge(decoded_ND: Tensor, target_ND: Tensor) -> Tensor:
    """Computes 1 − cosine of the decoded code and the embedding: ties code, semantic and entity vectors together."""
    return 1 - F.cosine_similarity(decoded_ND, target_ND, dim=-1).mean()


def entity(columns: Sequence[Tensor], temperature: float, sizes: Sequence[int]) -> Tensor:
    """Computes InfoNCE of the entity vector as in `ranking`, mean over its sizes.

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
    """Computes the mean distance to the soft-nearest prototype, plus a term that keeps prototypes from collapsing.

    −log Σ_k exp(κ cos) / κ, plus 0.1 times the log of the mean squared cosine between prototypes (the negative Rényi-2
    entropy of their Gram spectrum).
    """
    prototypes_KD = F.normalize(prototypes_KD, dim=-1)
    near = -torch.logsumexp(kappa * semantic_ND @ prototypes_KD.T, dim=-1).mean() / kappa
    others_KK = ~torch.eye(len(prototypes_KD), dtype=torch.bool, device=prototypes_KD.device)
    gram_KK = prototypes_KD @ prototypes_KD.T
    return near + 0.1 * (gram_KK[others_KK].square().mean() + 1e-4).log()


def _anchor(batch: TermBatch) -> Tensor:
    anchor_BA, positive_BA, *_ = batch.columns("anchor64")
    return anchor(anchor_BA, positive_BA)


def _fast(batch: TermBatch) -> Tensor:
    logits_NB, target_ND = batch.texts("fast_logits"), batch.unit_texts("embedding").detach()
    return fast(logits_NB, batch.parameters["bridge.sharpness"], target_ND, MAX_STEEPNESS**batch.progress)


def _bridge(batch: TermBatch) -> Tensor:
    logits_NB, target_ND = batch.texts("fast_logits"), batch.unit_texts("embedding").detach()
    soft_NB = torch.tanh(MAX_STEEPNESS**batch.progress * logits_NB)
    return bridge(F.linear(soft_NB, batch.parameters["bridge.decode.weight"]).float(), target_ND)


def _entity(batch: TermBatch) -> Tensor:
    return entity(batch.columns("entity"), batch.temperature, batch.entity_sizes)


def _anomaly(batch: TermBatch) -> Tensor:
    return anomaly(batch.unit_texts("embedding").detach(), batch.parameters["anomaly.prototypes.weight"], KAPPA)


TERMS = (
    Term("anchor", ("anchor64",), _anchor, head="anchor64"),
    Term("fast", ("fast_logits", "embedding"), _fast, head="fast_logits", parameters=("bridge.sharpness",)),
    Term("bridge", ("fast_logits", "embedding"), _bridge, head="fast_logits", parameters=("bridge.decode.weight",)),
    Term("entity", ("entity",), _entity, head="entity"),
    Term("anomaly", ("embedding",), _anomaly, parameters=("anomaly.prototypes.weight",)),
)
