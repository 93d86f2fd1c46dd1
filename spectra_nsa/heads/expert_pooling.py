"""Experts of pooling: a gate over further poolings, and a gate over small adapters (docs/model.md, section 6).

Legend: P the width of the pooled vector, J further poolings, K adapters, W their inner width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.gates import Gate, SelfInitialized, TextGate
from spectra_nsa.encoder.signals import Signals
from spectra_nsa.heads.pooling import build_pooling

_DEVIATION = 0.02  # of an adapter's first weights


class PoolingMixture(nn.Module):
    """h + Σ_j γ_j s_j(h) (h_j − h), with h the model's pooling, h_j others, γ = 0 at the start and s the text's gate.

    Args:
        kinds: the other poolings, each as wide as the model's.
        hidden_size: P.
    """

    def __init__(self, kinds: Sequence[str], hidden_size: int) -> None:
        super().__init__()
        self.poolings = nn.ModuleDict({kind: build_pooling(kind, hidden_size) for kind in kinds})
        self.gates = nn.ModuleList(Gate() for _ in kinds)
        self.router = TextGate(hidden_size, len(kinds))

    def forward(self, pooled_BP: Tensor, x_BTP: Tensor, mask_BT: Tensor, signals: Signals) -> tuple[Tensor, Tensor]:
        """Returns the mixed vector (B, P) and the gate (B, J), which is 1 for each pooling at the start."""
        gate_BJ = self.router(pooled_BP)
        mixed_BP = pooled_BP
        for at, (pooling, gate) in enumerate(zip(self.poolings.values(), self.gates, strict=True)):
            mixed_BP = mixed_BP + gate_BJ[:, at, None] * gate(pooling(x_BTP, mask_BT, signals) - pooled_BP)
        return mixed_BP, gate_BJ


class Adapters(SelfInitialized):
    """h + Σ_k (s_k(h) / K) D_k gelu(U_k h + b_k), with D = 0 at the start and s the text's gate.

    All adapters are computed: they cost next to nothing, and there is no load to balance.

    Args:
        size: P.
        count: K.
        width: W.
    """

    def __init__(self, size: int, count: int, width: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(count, width, size))
        self.up_bias = nn.Parameter(torch.empty(count, width))
        self.down = nn.Parameter(torch.empty(count, size, width))
        self.router = TextGate(size, count)
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        up = torch.randn(self.up.shape, generator=torch.Generator().manual_seed(0)) * _DEVIATION
        return {"up": up, "up_bias": torch.zeros(self.up_bias.shape), "down": torch.zeros(self.down.shape)}

    def forward(self, pooled_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the adapted vector (B, P) and the gate (B, K), which is 1 for each adapter at the start."""
        gate_BK = self.router(pooled_BP)
        inner_BKW = F.gelu(torch.einsum("bp,kwp->bkw", pooled_BP.to(self.up.dtype), self.up) + self.up_bias)
        change_BP = torch.einsum("bkw,kpw,bk->bp", inner_BKW, self.down, gate_BK.to(inner_BKW.dtype) / len(self.up))
        return pooled_BP + change_BP.to(pooled_BP.dtype), gate_BK
