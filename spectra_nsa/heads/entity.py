"""The entity head: a vector of the names, numbers, identifiers and rare terms of a text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.gates import Gate, Starts
from spectra_nsa.heads.pooling import weighted_mean


class RarityPrior(Starts):
    """a · idf(token): how much a token counts before anything is learned about it.

    The table is 0 for every token until it is fitted on a corpus (`fit`), and then travels with the model.

    Args:
        vocab_size: rows of the table.
    """

    idf: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.empty(1))
        self.register_buffer("idf", torch.empty(vocab_size))
        self.start()

    def initial(self) -> dict[str, Tensor]:
        return {"strength": torch.ones(1), "idf": torch.zeros(self.idf.shape)}

    @torch.no_grad()
    def fit(self, documents_V: Tensor, count: int) -> None:
        """Sets idf(v) = log((1 + N) / (1 + df_v)), scaled to a largest value of 1.

        Args:
            documents_V: in how many texts each token stands.
            count: N, how many texts there are.
        """
        idf_V = torch.log((1 + count) / (1 + documents_V.float()))
        self.idf.copy_(idf_V / idf_V.max().clamp_min(1e-6))

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.strength * self.idf[ids_BT]


class EntityHead(nn.Module):
    """Attention pooling over tokens with a rarity prior, and a projection: (B, T, H) to (B, E), unit length.

    Args:
        hidden_size: H.
        size: E.
        vocab_size: of the rarity table.
    """

    TEMPER = 4.0  # a token of the rarest kind weighs e⁴ ≈ 55 times one that is in every text

    def __init__(self, hidden_size: int, size: int, vocab_size: int) -> None:
        super().__init__()
        self.score = Gate(hidden_size)
        self.prior = RarityPrior(vocab_size)
        self.projection = nn.Linear(hidden_size, size, bias=False)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, ids_BT: Tensor) -> Tensor:
        scores_BT = self.score(x_BTD).sum(-1) + self.TEMPER * self.prior(ids_BT)
        return F.normalize(self.projection(weighted_mean(x_BTD, scores_BT, mask_BT)).float(), dim=-1)


class EntityFusion(nn.Module):
    """z + λ ‖z‖ U e, with λ zero at the start: the direction of semantic + λ U entity, at semantic's length.

    Args:
        entity_size: E.
        size: D.
    """

    def __init__(self, entity_size: int, size: int) -> None:
        super().__init__()
        self.up = nn.Linear(entity_size, size, bias=False)
        self.gate = Gate()

    def forward(self, semantic_BD: Tensor, entity_BE: Tensor) -> Tensor:
        added_BD = semantic_BD.norm(dim=-1, keepdim=True) * F.normalize(self.up(entity_BE).float(), dim=-1)
        return semantic_BD + self.gate(added_BD)
