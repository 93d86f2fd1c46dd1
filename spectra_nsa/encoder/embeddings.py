"""The first hidden states of token ids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext
from spectra_nsa.encoder.spec import EncoderSpec


class Embeddings(nn.Module):
    """Token + segment + learned position (with absolute positions), normalized, as in BERT."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        D = spec.hidden_size
        self.tokens = nn.Embedding(spec.vocab_size, D, padding_idx=spec.pad_token_id)
        self.segments = nn.Embedding(spec.type_vocab_size, D) if spec.type_vocab_size else None
        self.positions = nn.Embedding(spec.max_positions, D) if spec.position == "absolute" else None
        self.norm = nn.LayerNorm(D, eps=spec.norm_eps)
        self.dropout = nn.Dropout(spec.hidden_dropout)

    def forward(
        self, context: BatchContext, ids_BT: Tensor, segments_BT: Tensor | None, tokens_BTD: Tensor | None = None
    ) -> Tensor:
        x_BTD = self.tokens(ids_BT) if tokens_BTD is None else tokens_BTD
        if self.segments is not None:
            x_BTD = x_BTD + self.segments(torch.zeros_like(ids_BT) if segments_BT is None else segments_BT)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions(context.positions_BT)
        return self.dropout(self.norm(x_BTD))
