"""Self-attention. Every kind maps (B, T, D) to (B, T, D) given the batch context."""

from __future__ import annotations

from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext, rotate
from spectra_nsa.encoder.kernels import attend
from spectra_nsa.encoder.spec import EncoderSpec


class PlainAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017): W_o softmax(QKᵀ / √K) V, with one matrix for Q, K and V.

    Args:
        spec: `hidden_size`, `heads` and `attention_dropout` are read.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.dropout = spec.attention_dropout
        self.qkv = nn.Linear(spec.hidden_size, 3 * spec.hidden_size)
        self.out = nn.Linear(spec.hidden_size, spec.hidden_size)

    def forward(self, x_BTD: Tensor, context: BatchContext) -> Tensor:
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if context.rotary is not None:
            q, k = rotate(q, context.rotary), rotate(k, context.rotary)
        mixed_BHTK = attend(q, k, v, context.attend_B11T, self.dropout if self.training else 0.0)
        return self.out(mixed_BHTK.transpose(1, 2).reshape(B, T, D))
