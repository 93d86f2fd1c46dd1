"""The base class of an encoder's replaceable parts."""

from __future__ import annotations

from torch import nn


class EncoderPart(nn.Module):
    """A replaceable part of the encoder.

    Attributes:
        new_parts: names of its submodules that no BERT checkpoint has. In a warm start they keep the values they
            start from, which make the part an exact no-op.
    """

    new_parts: tuple[str, ...] = ()

    def matrices(self) -> list[nn.Parameter]:
        """Returns the weight matrices that training in several processes may shard: those of linear maps."""
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        return [weight for module in linear for weight in module.parameters(recurse=False) if weight.ndim == 2]
