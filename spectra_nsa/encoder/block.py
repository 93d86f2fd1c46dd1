"""One layer: a token mixer and a feed-forward network, each with its residual and norm."""

from __future__ import annotations

from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext


class PostNormBlock(nn.Module):
    """x ← norm(x + part(x)) for attention, then for the feed-forward network (BERT)."""

    def __init__(
        self, attention: nn.Module, ffn: nn.Module, norms: tuple[nn.Module, nn.Module], dropout: float
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm, self.ffn_norm = norms
        self.ffn = ffn
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, context: BatchContext) -> Tensor:
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, context)))
        return self.ffn_norm(x_BTD + self.dropout(self.ffn(x_BTD)))


class PreNormBlock(nn.Module):
    """x ← x + part(norm(x)) for attention, then for the feed-forward network."""

    def __init__(
        self, attention: nn.Module, ffn: nn.Module, norms: tuple[nn.Module, nn.Module], dropout: float
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm, self.ffn_norm = norms
        self.ffn = ffn
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, context: BatchContext) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD), context))
        return x_BTD + self.dropout(self.ffn(self.ffn_norm(x_BTD)))
