"""The semantic head: one linear map whose leading coordinates are embeddings of their own (Matryoshka)."""

from __future__ import annotations

from torch import Tensor, nn


class SemanticHead(nn.Module):
    """z = W h + b, trained so that every listed prefix of z, normalised, is an embedding (Kusupati et al. 2022).

    Args:
        pooled_size: width of the pooled vector h.
        size: width D of z.
        project: whether there is a map; without one, `size` equals `pooled_size` and z = h.
        bias: whether the map has a bias.
    """

    def __init__(self, pooled_size: int, size: int, *, project: bool, bias: bool = True) -> None:
        super().__init__()
        self.projection: nn.Module = nn.Linear(pooled_size, size, bias=bias) if project else nn.Identity()

    def forward(self, pooled_BP: Tensor) -> Tensor:
        return self.projection(pooled_BP)
