"""Interpolation of a trained encoder with its start, which preserves more of what the start knew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

_PARTS = ("encoder.", "pooling.", "pooling_mixture.", "adapters.", "semantic.")  # heads start from random weights


def start_weights(model: SpectraSentenceTransformer) -> dict[str, Tensor]:
    """Returns a copy of the weights for `interpolate`."""
    return {name: weight.detach().clone() for name, weight in _weights(model)}


@torch.no_grad()
def interpolate(model: SpectraSentenceTransformer, start: dict[str, Tensor], share: float) -> None:
    """Sets θ ← θ₀ + α (θ − θ₀) for encoder, pooling and semantic projection, in place (WiSE-FT, Wortsman et al. 2022).

    Args:
        model: the trained model.
        start: θ₀, by `start_weights` before the training.
        share: α; 1 changes nothing.
    """
    for name, weight in _weights(model):
        weight.copy_(torch.lerp(start[name].to(weight), weight, share))


def interpolation_line(share: float, measured: Mapping[str, float], before: float | None) -> str:
    """Returns the line that says what an interpolation did to the dev metric.

    Args:
        share: α.
        measured: the dev metric of the interpolated model by name; empty without a dev set.
        before: that of the trained model; ``None`` if it is not known.
    """
    change = "" if before is None else f", {before:.4f} before"
    figures = "".join(f": {name} {value:.4f}{change}" for name, value in measured.items())
    return f"spectra: interpolated with the start, share {share:g}{figures}"


def _weights(model: SpectraSentenceTransformer) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in model.spectra.named_parameters() if name.startswith(_PARTS)]
