"""Pooling: (B, T, D) token states to one vector a text, over real tokens only (docs/model.md, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_nsa.core.errors import unknown_name


class MeanPooling(nn.Module):
    """The mean over real tokens."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        weights_BT1 = mask_BT[:, :, None].to(x_BTD.dtype)
        return (x_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp_min(1e-9)


class ClsPooling(nn.Module):
    """The first real token."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        first_B = mask_BT.int().argmax(-1)
        return x_BTD[torch.arange(x_BTD.shape[0], device=x_BTD.device), first_B]


class MaxPooling(nn.Module):
    """The largest value of each dimension over real tokens."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return x_BTD.masked_fill(~mask_BT[:, :, None].bool(), torch.finfo(x_BTD.dtype).min).amax(1)


class MeanMaxPooling(nn.Module):
    """Mean and max side by side: twice the width."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.max = MeanPooling(), MaxPooling()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return torch.cat((self.mean(x_BTD, mask_BT), self.max(x_BTD, mask_BT)), dim=-1)


POOLING: dict[str, type[nn.Module]] = {
    "mean": MeanPooling,
    "cls": ClsPooling,
    "max": MaxPooling,
    "mean_max": MeanMaxPooling,
}


def build_pooling(name: str) -> nn.Module:
    """The pooling of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in POOLING:
        raise unknown_name("pooling", name, POOLING)
    return POOLING[name]()


def pooling_width(name: str) -> int:
    """How many times as wide as a token's state the pooled vector is.

    Raises:
        UsageError: there is no such pooling.
    """
    if name not in POOLING:
        raise unknown_name("pooling", name, POOLING)
    return 2 if name == "mean_max" else 1
