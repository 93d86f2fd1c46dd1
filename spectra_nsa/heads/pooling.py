"""Pooling: (B, T, D) token states to one vector a text, over real tokens only (docs/model.md, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_nsa.core.errors import unknown_name
from spectra_nsa.encoder.gates import Gate


class MeanPooling(nn.Module):
    """The mean over real tokens."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, entropy_BT: Tensor | None = None) -> Tensor:
        weights_BT1 = mask_BT[:, :, None].to(x_BTD.dtype)
        return (x_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp_min(1e-9)


class ClsPooling(nn.Module):
    """The first real token."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, entropy_BT: Tensor | None = None) -> Tensor:
        first_B = mask_BT.int().argmax(-1)
        return x_BTD[torch.arange(x_BTD.shape[0], device=x_BTD.device), first_B]


class MaxPooling(nn.Module):
    """The largest value of each dimension over real tokens."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, entropy_BT: Tensor | None = None) -> Tensor:
        return x_BTD.masked_fill(~mask_BT[:, :, None].bool(), torch.finfo(x_BTD.dtype).min).amax(1)


class MeanMaxPooling(nn.Module):
    """Mean and max side by side: twice the width."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.max = MeanPooling(), MaxPooling()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, entropy_BT: Tensor | None = None) -> Tensor:
        return torch.cat((self.mean(x_BTD, mask_BT), self.max(x_BTD, mask_BT)), dim=-1)


def weighted_mean(x_BTD: Tensor, scores_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean of real tokens under softmax weights."""
    scores_BT = scores_BT.float().masked_fill(~mask_BT.bool(), torch.finfo(torch.float32).min)
    return torch.einsum("bt,btd->bd", scores_BT.softmax(-1).to(x_BTD.dtype), x_BTD)


class AttentionPooling(nn.Module):
    """Weights softmax(v · h_t) with a learned v, zero at the start: the mean, to begin with.

    Args:
        hidden_size: width of a token's state.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.gate = Gate(hidden_size)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, entropy_BT: Tensor | None = None) -> Tensor:
        return weighted_mean(x_BTD, self.gate(x_BTD).sum(-1), mask_BT)


class EntropyPooling(nn.Module):
    """Weights ∝ exp(−τ Ē_t), Ē the top layer's attention entropy averaged over heads; τ = 0 at the start: the mean."""

    needs_entropy = True

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, entropy_BT: Tensor | None = None) -> Tensor:
        assert entropy_BT is not None
        return weighted_mean(x_BTD, -self.gate(entropy_BT[..., None]).squeeze(-1), mask_BT)


POOLING: dict[str, type[nn.Module]] = {
    "mean": MeanPooling,
    "cls": ClsPooling,
    "max": MaxPooling,
    "mean_max": MeanMaxPooling,
    "attention": AttentionPooling,
    "entropy": EntropyPooling,
}


def build_pooling(name: str, hidden_size: int) -> nn.Module:
    """The pooling of that name, for token states of that width.

    Raises:
        UsageError: there is none.
    """
    if name not in POOLING:
        raise unknown_name("pooling", name, POOLING)
    return AttentionPooling(hidden_size) if name == "attention" else POOLING[name]()


def pooling_width(name: str) -> int:
    """How many times as wide as a token's state the pooled vector is.

    Raises:
        UsageError: there is no such pooling.
    """
    if name not in POOLING:
        raise unknown_name("pooling", name, POOLING)
    return 2 if name == "mean_max" else 1
