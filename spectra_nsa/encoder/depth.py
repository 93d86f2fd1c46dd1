"""Fractal depth mixing: the top states, mixed with the states 1, 2, 4, … layers below."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext, text_means
from spectra_nsa.encoder.gates import Gate, TextGate
from spectra_nsa.encoder.kinds import mixed_depths


class DepthMixing(nn.Module):
    """h̄ = h_L + Σ_j w_j (h_{L − 2^j} − h_L) over 2^j ≤ L, w = 0 at the start (docs/model.md, section 3).

    With routing, each text has weights of its own: w_j times the gate of the text's mean top state.

    Args:
        layers: L; depth 0 is the output of the embeddings.
        routed: the width D of the states for a gate; ``None`` for weights that all texts share.
    """

    def __init__(self, layers: int, routed: int | None = None) -> None:
        super().__init__()
        self.below = mixed_depths(layers)
        self.gates = nn.ModuleList(Gate() for _ in self.below)
        self.router = None if routed is None else TextGate(routed, len(self.below))

    def forward(self, states: Sequence[Tensor], context: BatchContext) -> tuple[Tensor, Tensor | None]:
        """Mixes the states of L + 1 depths, lowest first.

        Returns:
            new top states (B, T, D), and the gate (B, J) of J depths, the highest first; ``None`` without routing.
        """
        top_BTD = states[-1]
        gate_BJ = None if self.router is None else self.router(text_means(top_BTD, context))
        mixed_BTD = top_BTD
        for at, (gate, below) in enumerate(zip(self.gates, self.below, strict=True)):
            change_BTD = gate(states[-1 - below] - top_BTD)
            if gate_BJ is not None:
                change_BTD = change_BTD * gate_BJ[:, at, None, None]
            mixed_BTD = mixed_BTD + change_BTD.to(top_BTD.dtype)
        return mixed_BTD, gate_BJ
