"""Training a part of a model while the rest stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectra_nsa.models.model import SpectraModel

_ENCODER = {"embeddings": ("encoder.embeddings.",), "attention": (".attention.",), "ffn": (".ffn.",)}


def part_of(name: str) -> str:
    """Returns the part that a weight belongs to, a name that `train.parts` may have.

    Args:
        name: the weight's name in a `SpectraModel`.
    """
    if not name.startswith("encoder."):
        return "heads"
    return next((part for part, marks in _ENCODER.items() if any(mark in name for mark in marks)), "norms")


def train_only(model: SpectraModel, parts: Sequence[str] | None) -> None:
    """Turns off the gradient of all weights that belong to other parts.

    Args:
        model: changed in place.
        parts: ``embeddings``, ``attention``, ``ffn``, ``norms`` (with the gates over depths) and ``heads``; ``None``
            for all.
    """
    if parts is not None:
        for name, weight in model.named_parameters():
            weight.requires_grad_(part_of(name) in parts)
