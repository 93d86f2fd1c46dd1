"""Feed-forward networks. Every kind maps (..., D) to (..., D), token by token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.spec import EncoderSpec

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class GeluFFN(nn.Module):
    """W_down act(W_up x), as in BERT."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.up = nn.Linear(spec.hidden_size, spec.ffn_size)
        self.down = nn.Linear(spec.ffn_size, spec.hidden_size)
        self.activation = ACTIVATION_FUNCTIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))


class GegluFFN(nn.Module):
    """W_down (act(W_gate x) ⊙ W_up x) (Shazeer 2020, GLU Variants), without biases; gate and up are one matrix."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.gate_up = nn.Linear(spec.hidden_size, 2 * spec.ffn_size, bias=False)
        self.down = nn.Linear(spec.ffn_size, spec.hidden_size, bias=False)
        self.activation = ACTIVATION_FUNCTIONS[spec.activation]

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)
