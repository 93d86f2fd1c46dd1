"""The entity head: a vector of the names, numbers, identifiers and rare terms in a text."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.gates import Gate, SelfInitialized
from spectra_nsa.heads.pooling import weighted_mean


class RarityPrior(SelfInitialized):
    """A learned multiple of a table over tokens; times `EntityHead.TEMPER` it is the log weight of a token.

    The table is 0 for every token until it is fitted on a corpus (`fit`); it is saved with the model.

    Args:
        vocab_size: rows of the table.
    """

    LEAST = 1e-4  # of the largest weight, so that a text of only common tokens still has a mean

    idf: Tensor

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.empty(1))
        self.register_buffer("idf", torch.empty(vocab_size))
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        return {"strength": torch.ones(1), "idf": torch.zeros(self.idf.shape)}

    @torch.no_grad()
    def fit(self, documents_V: Tensor, count: int) -> None:
        """Sets the table so that a token has weight √idf + c, idf(v) = log((1 + N) / (1 + df_v)).

        c is the mean of √idf over the tokens of the texts, each token counted once per text. The pooled state is then
        about half the plain mean and half the mean weighted by √idf. With √idf alone, what a text says about a rare
        term is lost.

        Args:
            documents_V: number of texts that contain each token.
            count: N, the number of texts.
        """
        documents_V = documents_V.float()
        root_V = torch.log((1 + count) / (1 + documents_V)).clamp_min(0).sqrt()
        common = (documents_V * root_V).sum() / documents_V.sum().clamp_min(1)
        weight_V = root_V + common
        weight_V = (weight_V / weight_V.max().clamp_min(1e-6)).clamp_min(self.LEAST)
        self.idf.copy_(weight_V.log() / EntityHead.TEMPER)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.strength * self.idf[ids_BT]


class EntityHead(nn.Module):
    """Attention pooling over tokens with a rarity prior, and a projection: (B, T, H) to (B, E), unit length.

    docs/model.md, section 5.

    Args:
        hidden_size: H.
        size: E.
        vocab_size: rows of the rarity table.
    """

    TEMPER = 4.0  # saved tables are in units of it
    SHRINKAGE = 0.01  # of the covariance, toward its mean variance
    WHITENING = 0.2  # 0 keeps the variances, 1 makes them equal

    def __init__(self, hidden_size: int, size: int, vocab_size: int) -> None:
        super().__init__()
        self.score = Gate(hidden_size)
        self.prior = RarityPrior(vocab_size)
        self.projection = nn.Linear(hidden_size, size, bias=False)

    def pool(self, x_BTD: Tensor, mask_BT: Tensor, ids_BT: Tensor) -> Tensor:
        """Returns the weighted mean of the token states, (B, H)."""
        return weighted_mean(x_BTD, self.score(x_BTD).sum(-1) + self.TEMPER * self.prior(ids_BT), mask_BT)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, ids_BT: Tensor) -> Tensor:
        return F.normalize(self.projection(self.pool(x_BTD, mask_BT, ids_BT)).float(), dim=-1)

    @torch.no_grad()
    def fit(self, pooled_NH: Tensor) -> None:
        """Sets the projection W = Λ^(−ω/2) Vᵀ (I − m mᵀ) with Frobenius norm √E and ω = `WHITENING`.

        m is the direction of the mean of the texts, which W removes. V and Λ are the leading eigenvectors and
        eigenvalues of their covariance. This is a small step from the plain projection (ω = 0) to whitening (ω = 1;
        Su et al. 2021): what most texts share counts less, and noise is not amplified.

        Args:
            pooled_NH: the pooled states of N texts; with fewer than two finite rows W does not change.
        """
        rows_NH = pooled_NH[pooled_NH.isfinite().all(-1)].double()
        if len(rows_NH) < 2:
            return
        mean_H = rows_NH.mean(0)
        common_H = F.normalize(mean_H, dim=0)
        rows_NH = rows_NH - mean_H
        rows_NH = rows_NH - torch.outer(rows_NH @ common_H, common_H)
        covariance_HH = rows_NH.T @ rows_NH / len(rows_NH)
        least = self.SHRINKAGE * covariance_HH.diagonal().mean().clamp_min(1e-12)
        values_H, vectors_HH = torch.linalg.eigh(covariance_HH)
        scale_H = (values_H.clamp_min(0) + least) ** (-self.WHITENING / 2)
        weight_EH = (scale_H * vectors_HH).T.flip(0)[: len(self.projection.weight)]
        weight_EH = weight_EH - torch.outer(weight_EH @ common_H, common_H)
        weight_EH = weight_EH * (len(weight_EH) ** 0.5 / weight_EH.norm())
        self.projection.weight.zero_()  # rows beyond H stay zero
        self.projection.weight[: len(weight_EH)] = weight_EH.to(self.projection.weight)


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
