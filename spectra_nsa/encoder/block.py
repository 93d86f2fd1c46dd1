"""One layer: a token mixer and a feed-forward network, each with its residual and norm."""

from __future__ import annotations

from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext
from spectra_nsa.encoder.part import EncoderPart
from spectra_nsa.encoder.signals import Signals


class Block(EncoderPart):
    """The parts of a layer; the subclasses define their order.

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

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Signals]:
        """Returns the new states and the signals of both parts."""
        mixed_BTD, signals = self.attention(x_BTD, context)
        x_BTD = self.attention_norm(x_BTD + self.dropout(mixed_BTD))
        fed_BTD, more = self.ffn(x_BTD, context)
        return self.ffn_norm(x_BTD + self.dropout(fed_BTD)), signals.merged(more)


class PreNormBlock(Block):
    """x ← x + part(norm(x)) for attention, then for the feed-forward network."""

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Signals]:
        """Returns the new states and the signals of both parts."""
        mixed_BTD, signals = self.attention(self.attention_norm(x_BTD), context)
        x_BTD = x_BTD + self.dropout(mixed_BTD)
        fed_BTD, more = self.ffn(self.ffn_norm(x_BTD), context)
        return x_BTD + self.dropout(fed_BTD), signals.merged(more)
