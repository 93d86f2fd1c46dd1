"""Spectral anchors: 64 cosines to learned directions (docs/model.md, section 5)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.heads.kinds import ANCHORS


class AnchorHead(nn.Module):
    """Cosines of z to the spectral anchors: (B, D) to (B, 64).

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.anchors = nn.Linear(size, ANCHORS, bias=False)

    def forward(self, semantic_BD: Tensor) -> Tensor:
        anchors_AD = F.normalize(self.anchors.weight.float(), dim=-1)
        return F.linear(F.normalize(semantic_BD.float(), dim=-1), anchors_AD)
