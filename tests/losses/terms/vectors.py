"""Vectors for the tests of terms."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    """Returns random unit vectors."""
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)
