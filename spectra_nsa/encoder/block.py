"""One layer: a token mixer and a feed-forward network, each with its residual and norm."""

from __future__ import annotations

from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext


class Block(nn.Module):
    """The parts of a layer; the kinds below say in which order they work.

    Args:
        attention: see `encoder.attention`.
        ffn: see `encoder.ffn`.
        norms: of the attention and of the feed-forward network.
        dropout: on what each part adds.
    """

    def __init__(
        self, attention: nn.Module, ffn: nn.Module, norms: tuple[nn.Module, nn.Module], dropout: float
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm, self.ffn_norm = norms
        self.ffn = ffn
        self.dropout = nn.Dropout(dropout)


class PostNormBlock(Block):
    """x ← norm(x + part(x)) for attention, then for the feed-forward network (BERT)."""

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Tensor | None]:
        """The new states, and the attention's entropy (B, H, T) where it is measured."""
        mixed_BTD, entropy_BHT = self.attention(x_BTD, context)
        x_BTD = self.attention_norm(x_BTD + self.dropout(mixed_BTD))
        return self.ffn_norm(x_BTD + self.dropout(self.ffn(x_BTD))), entropy_BHT


class PreNormBlock(Block):
    """x ← x + part(norm(x)) for attention, then for the feed-forward network."""

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Tensor | None]:
        """The new states, and the attention's entropy (B, H, T) where it is measured."""
        mixed_BTD, entropy_BHT = self.attention(self.attention_norm(x_BTD), context)
        x_BTD = x_BTD + self.dropout(mixed_BTD)
        return x_BTD + self.dropout(self.ffn(self.ffn_norm(x_BTD))), entropy_BHT
