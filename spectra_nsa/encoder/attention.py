"""Attention. Every kind maps states (B, T, D) to (B, T, D) given the batch context, and reports its signals."""

from __future__ import annotations

from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext, apply_rotary
from spectra_nsa.encoder.gates import Gate
from spectra_nsa.encoder.kernels import attend, attention_entropy
from spectra_nsa.encoder.kinds import MIXERS
from spectra_nsa.encoder.part import EncoderPart
from spectra_nsa.encoder.signals import Signals
from spectra_nsa.encoder.spec import EncoderSpec


class PlainAttention(EncoderPart):
    """Multi-head attention (Vaswani et al. 2017): W_o softmax(QKᵀ / √K) V, with one matrix for Q, K and V.

    Args:
        spec: `hidden_size`, `heads` and `attention_dropout` are read.
        measured: whether to compute the entropy of each head's attention too.
    """

    def __init__(self, spec: EncoderSpec, measured: bool) -> None:
        super().__init__()
        self.heads = spec.heads
        self.dropout = spec.attention_dropout
        self.measured = measured
        self.qkv = nn.Linear(spec.hidden_size, 3 * spec.hidden_size)
        self.out = nn.Linear(spec.hidden_size, spec.hidden_size)

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Signals]:
        """Returns the mixed tokens (B, T, D), and the entropy of the attention if it is measured."""
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if context.rotary is not None:
            q, k = apply_rotary(q, context.rotary), apply_rotary(k, context.rotary)
        mixed_BHTK = attend(q, k, v, context.attend_B11T, self.dropout if self.training else 0.0)
        entropy_BHT = attention_entropy(q, k, context.mask_BT) if self.measured else None
        return self.out(mixed_BHTK.transpose(1, 2).reshape(B, T, D)), Signals(entropy_BHT=entropy_BHT)


class SpectralAttention(PlainAttention):
    """Attention with a second path that contributes where attention is undecided (docs/model.md, section 2).

    out = W_o a + γ ⊙ σ(w_E · E + b) · y, with E the attention's entropy (a signal: no gradient flows into it), y the
    mixer's output and γ zero at the start. In a layer that does not measure its entropy, the bias b alone decides.

    Args:
        spec: also `spectral_dim` and `mixer`.
        measured: see `PlainAttention`.
    """

    new_parts = ("mixer", "undecided", "gate")

    def __init__(self, spec: EncoderSpec, measured: bool) -> None:
        super().__init__(spec, measured)
        self.mixer = MIXERS[spec.mixer].load()(spec)
        self.undecided = nn.Linear(spec.heads, 1)
        self.gate = Gate(spec.hidden_size)

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Signals]:
        out_BTD, signals = super().forward(x_BTD, context)
        if signals.entropy_BHT is None:
            share_BT1 = self.undecided.bias.sigmoid()
        else:
            share_BT1 = self.undecided(signals.entropy_BHT.transpose(1, 2).to(x_BTD.dtype)).sigmoid()
        return out_BTD + self.gate(share_BT1 * self.mixer(x_BTD, context)).to(out_BTD.dtype), signals
