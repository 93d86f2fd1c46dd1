"""Modules that define their own initial values, and the zero-start gate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfInitialized(nn.Module):
    """A module that defines the initial values of its own parameters and buffers.

    The Hugging Face model asks for them again to fill what a file lacks: a model built on the meta device has lost the
    values that its constructors wrote.
    """

    def initial_values(self) -> dict[str, Tensor]:
        """Returns the values by name of the parameter or buffer."""
        raise NotImplementedError

    @torch.no_grad()
    def initialize(self) -> None:
        """Writes the values; called at the end of a constructor. On the meta device there are none to write."""
        if any(value.is_meta for value in (*self.parameters(), *self.buffers())):
            return
        for name, value in self.initial_values().items():
            getattr(self, name).copy_(value)


class Gate(SelfInitialized):
    """x ↦ γ x with γ = 0 at the start: an exact no-op that still gets gradient, because x is not zero.

    Gates are a parameter group of their own, with a higher learning rate and no weight decay: at the backbone's
    learning rate Adam would hardly move them.

    Args:
        size: width of the last dimension, one γ for each number; 1 for a single γ.
    """

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        return {"weight": torch.zeros(self.weight.shape)}

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class SinglePrecision(SelfInitialized):
    """A module whose own parameters and buffers stay in fp32 if the model is cast."""

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        """Moves the weights between devices, and undoes casts."""
        kept = {name: value.data for name, value in (*self.named_parameters(), *self.named_buffers())}
        super()._apply(fn, recurse)
        for name, value in (*self.named_parameters(), *self.named_buffers()):
            if value.dtype != torch.float32:
                value.data = kept[name].to(value.device)
        return self


class TextGate(SinglePrecision):
    """q ↦ J softmax(W q) with W = 0 at the start: a factor for each of J candidates, 1 for all whatever the text.

    It is computed in fp32, whatever the number format of the model and of autocast.

    Args:
        size: the width of q, a vector of the text.
        candidates: J.
    """

    def __init__(self, size: int, candidates: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(candidates, size))
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        return {"weight": torch.zeros(self.weight.shape)}

    def forward(self, q_BD: Tensor) -> Tensor:
        """Returns the factors: (B, J), which sum to J."""
        with torch.autocast(q_BD.device.type, enabled=False):
            return len(self.weight) * F.linear(q_BD.float(), self.weight.float()).softmax(-1)
