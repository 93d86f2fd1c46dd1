"""The ranking head: the semantic vector, adapted to retrieval."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.gates import SelfInitialized


class ZeroLinear(nn.Linear, SelfInitialized):
    """A linear map without bias; its initial weights are 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        return {"weight": torch.zeros(self.weight.shape)}


class RankingHead(nn.Module):
    """Computes (I + R) z at unit length, with R = 0 at the start.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.change = ZeroLinear(size, size)

    def forward(self, semantic_BD: Tensor) -> Tensor:
        return F.normalize((semantic_BD + self.change(semantic_BD)).float(), dim=-1)
