"""InfoNCE at every Matryoshka size, on embeddings computed in groups of like length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn

from spectra_nsa.tokens.length_batches import embed_by_length


class InfoNCE(nn.Module):
    """Mean over sizes m of −log exp(cos(a, p) / τ) / Σ_c exp(cos(a, c) / τ), on the first m numbers of each vector.

    The candidates c of an anchor are all positives and negatives of the batch (van den Oord et al. 2018; Kusupati et
    al. 2022 for the sizes). The loss itself is sentence-transformers' `MultipleNegativesRankingLoss`; what is ours is
    that the vectors are computed once for all sizes, without padding short texts to the longest of the batch.

    Args:
        model: the model in training.
        temperature: τ.
        sizes: the Matryoshka sizes; the full width alone trains no prefixes.
        both_directions: also from positives to anchors.
        groups: forward passes a batch; see `embed_by_length`.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        temperature: float = 0.05,
        sizes: Sequence[int],
        both_directions: bool = True,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.sizes = tuple(sizes)
        self.groups = groups
        self.rank = MultipleNegativesRankingLoss(
            model,
            scale=1 / temperature,
            directions=("query_to_doc", "doc_to_query") if both_directions else ("query_to_doc",),
            partition_mode="per_direction",
        )
        # The trainer swaps `self.model` for its distributed wrapper; the inner loss never runs the model.
        del self.rank.model

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """The named terms of the loss, one a size; the trainer adds them up and logs each.

        Args:
            features: tokenised columns: anchor, positive, and any negatives.
            labels: unused.
        """
        return self.of_vectors(embed_by_length(self.model, list(features), self.groups))

    def of_vectors(self, columns: Sequence[Tensor]) -> dict[str, Tensor]:
        """The terms from vectors that are there already: (B, D) for anchors, positives and any negatives."""
        vectors = [vector.float() for vector in columns]
        return {
            f"semantic_{size}": self.rank.compute_loss_from_embeddings([v[:, :size] for v in vectors], torch.empty(0))
            / len(self.sizes)
            for size in self.sizes
        }

    def set_temperature(self, temperature: float) -> None:
        """Sets τ from the next step on."""
        self.rank.scale = 1 / temperature
