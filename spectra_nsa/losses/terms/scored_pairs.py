"""Terms of pairs with a score from 0 to 1, at every Matryoshka size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from sentence_transformers.util import pairwise_angle_sim, pairwise_cos_sim
from torch import Tensor

from spectra_nsa.losses.terms.term import Term, TermBatch


def cosent(first_BD: Tensor, second_BD: Tensor, score_B: Tensor, temperature: float) -> Tensor:
    """Computes log(1 + Σ exp((cos_j − cos_i) / τ)) over rows i, j of which i has the higher score.

    Source: Huang et al. 2024.
    """
    return _rank_by_score(pairwise_cos_sim, [first_BD, second_BD], score_B, temperature)


def angle(first_BD: Tensor, second_BD: Tensor, score_B: Tensor, temperature: float) -> Tensor:
    """Computes CoSENT with the angle between vectors whose halves are read as complex numbers.

    Source: Li and Li 2024, AnglE. The last number of an odd width is dropped.
    """
    even = first_BD.shape[1] // 2 * 2
    return _rank_by_score(pairwise_angle_sim, [first_BD[:, :even], second_BD[:, :even]], score_B, temperature)


def _rank_by_score(similarity: Any, columns: list[Tensor], score_B: Tensor, temperature: float) -> Tensor:
    loss: Any = CoSENTLoss  # its model is not used when the vectors are given
    value: Tensor = loss(None, 1 / temperature, similarity).compute_loss_from_embeddings(columns, score_B)
    return value


def cosine(first_BD: Tensor, second_BD: Tensor, score_B: Tensor) -> Tensor:
    """Computes the mean squared difference of cosine and score (Reimers and Gurevych 2019)."""
    return F.mse_loss(F.cosine_similarity(first_BD, second_BD), score_B)


def contrastive(first_BD: Tensor, second_BD: Tensor, score_B: Tensor, margin: float) -> Tensor:
    """Computes the mean over rows of ½ [s d² + (1 − s) max(0, margin − d)²], d = 1 − cos (Hadsell et al. 2006)."""
    far_B = 1 - F.cosine_similarity(first_BD, second_BD)
    return 0.5 * (score_B * far_B.square() + (1 - score_B) * (margin - far_B).clamp_min(0).square()).mean()


def _scored(
    loss: Callable[..., Tensor], option: Callable[[TermBatch], float] | None
) -> Callable[[TermBatch], dict[int, Tensor]]:
    def compute(batch: TermBatch) -> dict[int, Tensor]:
        options = () if option is None else (option(batch),)
        return batch.at_sizes(lambda first_BD, second_BD: loss(first_BD, second_BD, batch.scores, *options))

    return compute


TERMS = (
    Term("cosent", ("embedding",), _scored(cosent, lambda batch: batch.temperature)),
    Term("angle", ("embedding",), _scored(angle, lambda batch: batch.temperature)),
    Term("cosine", ("embedding",), _scored(cosine, None)),
    Term("contrastive", ("embedding",), _scored(contrastive, lambda batch: batch.margin)),
)
