"""The ranking head: the semantic vector, bent for retrieval."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.gates import Starts


class ZeroLinear(nn.Linear, Starts):
    """A linear map without bias that starts as 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.start()

    def initial(self) -> dict[str, Tensor]:
        return {"weight": torch.zeros(self.weight.shape)}


class RankingHead(nn.Module):
    """(I + R) z, unit length, with R = 0 at the start.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.change = ZeroLinear(size, size)

    def forward(self, semantic_BD: Tensor) -> Tensor:
        return F.normalize((semantic_BD + self.change(semantic_BD)).float(), dim=-1)
