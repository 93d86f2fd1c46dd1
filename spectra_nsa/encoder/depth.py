"""Fractal depth mixing: the top states, mixed with the states 1, 2, 4, … layers below."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spectra_nsa.encoder.gates import Gate
from spectra_nsa.encoder.kinds import mixed_depths


class DepthMixing(nn.Module):
    """h̄ = h_L + Σ_j w_j (h_{L − 2^j} − h_L) over 2^j ≤ L, w = 0 at the start (docs/model.md, section 3).

    Args:
        layers: L; depth 0 is the output of the embeddings.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.below = mixed_depths(layers)
        self.gates = nn.ModuleList(Gate() for _ in self.below)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Mixes the states of L + 1 depths, lowest first, into new top states (B, T, D)."""
        top_BTD = states[-1]
        mixed_BTD = top_BTD
        for gate, below in zip(self.gates, self.below, strict=True):
            mixed_BTD = mixed_BTD + gate(states[-1 - below] - top_BTD).to(top_BTD.dtype)
        return mixed_BTD
