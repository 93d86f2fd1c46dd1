"""Modules that define their own initial values, and the zero-start gate."""

from __future__ import annotations

import torch
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
