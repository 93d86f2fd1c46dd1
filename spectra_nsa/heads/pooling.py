"""Pooling: token states (B, T, D) to one vector per text, over real tokens only (docs/model.md, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectra_nsa.core.errors import unknown_name
from spectra_nsa.encoder.gates import Gate
from spectra_nsa.encoder.signals import NO_SIGNALS, Signals
from spectra_nsa.heads.kinds import POOLINGS


class Pooling(nn.Module):
    """Token states (B, T, D), mask (B, T) and the top layer's signals to one vector per text, (B, width · D).

    Args:
        hidden_size: D.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()


class MeanPooling(Pooling):
    """The mean over real tokens."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, signals: Signals = NO_SIGNALS) -> Tensor:
        weights_BT1 = mask_BT[:, :, None].to(x_BTD.dtype)
        return (x_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp_min(1e-9)


class ClsPooling(Pooling):
    """The first real token."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, signals: Signals = NO_SIGNALS) -> Tensor:
        first_B = mask_BT.int().argmax(-1)
        return x_BTD[torch.arange(x_BTD.shape[0], device=x_BTD.device), first_B]


class MaxPooling(Pooling):
    """The maximum of each dimension over real tokens; 0 without any."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, signals: Signals = NO_SIGNALS) -> Tensor:
        least = torch.finfo(x_BTD.dtype).min
        maximum_BD = x_BTD.masked_fill(~mask_BT[:, :, None].bool(), least).amax(1)
        return maximum_BD.masked_fill(maximum_BD == least, 0.0)


class MeanMaxPooling(Pooling):
    """Mean and max side by side: twice the width."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.mean, self.max = MeanPooling(hidden_size), MaxPooling(hidden_size)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, signals: Signals = NO_SIGNALS) -> Tensor:
        return torch.cat((self.mean(x_BTD, mask_BT), self.max(x_BTD, mask_BT)), dim=-1)


def weighted_mean(x_BTD: Tensor, scores_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Returns the mean of real tokens under softmax weights."""
    scores_BT = scores_BT.float().masked_fill(~mask_BT.bool(), torch.finfo(torch.float32).min)
    return torch.einsum("bt,btd->bd", scores_BT.softmax(-1).to(x_BTD.dtype), x_BTD)


class AttentionPooling(Pooling):
    """Weights softmax(v · h_t) with a learned v, zero at the start, which gives the mean."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.gate = Gate(hidden_size)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, signals: Signals = NO_SIGNALS) -> Tensor:
        return weighted_mean(x_BTD, self.gate(x_BTD).sum(-1), mask_BT)


class EntropyPooling(Pooling):
    """Weights ∝ exp(−τ Ē_t), Ē the top layer's attention entropy averaged over heads; τ starts at 0: the mean."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size)
        self.gate = Gate()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor, signals: Signals = NO_SIGNALS) -> Tensor:
        assert signals.entropy_BHT is not None
        entropy_BT = signals.entropy_BHT.mean(1)
        return weighted_mean(x_BTD, -self.gate(entropy_BT[..., None]).squeeze(-1), mask_BT)


def build_pooling(name: str, hidden_size: int) -> Pooling:
    """Builds the pooling of that name, for token states of that width.

    Raises:
        UsageError: there is none.
    """
    if name not in POOLINGS:
        raise unknown_name("pooling", name, POOLINGS)
    pooling: Pooling = POOLINGS[name].load()(hidden_size)
    return pooling
