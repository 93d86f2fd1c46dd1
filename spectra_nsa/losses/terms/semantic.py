"""InfoNCE at every Matryoshka size."""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from spectra_nsa.losses.terms.term import Term, TermBatch


def info_nce(*columns: Tensor, temperature: float, both_directions: bool) -> Tensor:
    """Computes the mean over rows of −log exp(cos(a, p) / τ) / Σ_c exp(cos(a, c) / τ).

    The candidates c of an anchor are all positives and negatives of the batch (van den Oord et al. 2018). The loss is
    sentence-transformers' `MultipleNegativesRankingLoss`.

    Args:
        columns: anchors, positives and any negatives, each (B, D).
        temperature: τ.
        both_directions: whether the mean also covers the direction from positives to anchors.
    """
    loss: Any = MultipleNegativesRankingLoss  # its model is not used when the vectors are given
    directions = ("query_to_doc", "doc_to_query") if both_directions else ("query_to_doc",)
    ranked = loss(None, scale=1 / temperature, directions=directions, partition_mode="per_direction")
    value: Tensor = ranked.compute_loss_from_embeddings(list(columns), torch.empty(0))
    return value


def _semantic(batch: TermBatch) -> dict[int, Tensor]:
    return batch.at_sizes(
        lambda *columns: info_nce(*columns, temperature=batch.temperature, both_directions=batch.both_directions)
    )


TERMS = (Term("semantic", ("embedding",), _semantic),)
