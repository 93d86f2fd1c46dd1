"""Feed-forward networks.

Every kind maps states (B, T, D) to (B, T, D) given the batch context, and reports its signals.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext
from spectra_nsa.encoder.part import EncoderPart
from spectra_nsa.encoder.signals import NO_SIGNALS, Signals
from spectra_nsa.encoder.spec import EncoderSpec

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class GeluFFN(EncoderPart):
    """W_down act(W_up x), as in BERT."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.up = nn.Linear(spec.hidden_size, spec.ffn_size)
        self.down = nn.Linear(spec.ffn_size, spec.hidden_size)
        self.activation = ACTIVATION_FUNCTIONS[spec.activation]

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Signals]:
        return self.down(self.activation(self.up(x_BTD))), NO_SIGNALS


class GegluFFN(EncoderPart):
    """W_down (act(W_gate x) ⊙ W_up x) (Shazeer 2020, GLU Variants), without biases; gate and up are one matrix."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.gate_up = nn.Linear(spec.hidden_size, 2 * spec.ffn_size, bias=False)
        self.down = nn.Linear(spec.ffn_size, spec.hidden_size, bias=False)
        self.activation = ACTIVATION_FUNCTIONS[spec.activation]

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Signals]:
        gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(self.activation(gate_BTF) * up_BTF), NO_SIGNALS
