"""Modules that know the values they start from, and the zero-start scale among them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Starts(nn.Module):
    """A module whose weights start at values of its own.

    The model asks for them again when it fills what a file lacks: it may have been built on the meta device, where a
    constructor's values are lost.
    """

    def initial(self) -> dict[str, Tensor]:
        """The values, by the name of the parameter or buffer."""
        raise NotImplementedError

    @torch.no_grad()
    def start(self) -> None:
        """Writes the values; for the end of a constructor. On the meta device there are none to write."""
        if any(value.is_meta for value in (*self.parameters(), *self.buffers())):
            return
        for name, value in self.initial().items():
            getattr(self, name).copy_(value)


class Gate(Starts):
    """x ↦ γ x with γ = 0 at the start: an exact no-op that still gets gradient, because x is not zero.

    Gates have a parameter group of their own (higher learning rate, no weight decay): at a backbone's learning rate
    Adam would hardly move them.

    Args:
        size: one γ for each of the last dimension's numbers; 1 for a single one.
    """

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.start()

    def initial(self) -> dict[str, Tensor]:
        return {"weight": torch.zeros(self.weight.shape)}

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight
