"""Interpolation of a trained encoder with its start, which preserves more of what the start knew."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spectra_nsa.core import processes

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.loop.trainer import RunTrainer

_PARTS = ("encoder.", "pooling.", "semantic.")  # heads start from random weights


def start_weights(model: SpectraSentenceTransformer) -> dict[str, Tensor]:
    """Returns a copy of the weights for `interpolate`."""
    return {name: weight.detach().clone() for name, weight in _weights(model)}


@torch.no_grad()
def interpolate(trainer: RunTrainer, model: SpectraSentenceTransformer, start: dict[str, Tensor], share: float) -> None:
    """Sets θ ← θ₀ + α (θ − θ₀) for encoder, pooling and semantic projection, in place (WiSE-FT, Wortsman et al. 2022).

    The dev metric of the interpolated model is measured and becomes the run's best.

    Args:
        trainer: of the run.
        model: the trained model.
        start: θ₀, by `start_weights` before the training.
        share: α; 1 changes nothing.
    """
    for name, weight in _weights(model):
        weight.copy_(torch.lerp(start[name].to(weight), weight, share))
    if trainer.plan.evaluator is None:
        return
    before = trainer.state.best_metric
    model.eval()
    ((name, value),) = trainer.plan.evaluator(model).items()
    trainer.state.best_metric = value
    if processes.is_first():
        change = "" if before is None else f", {before:.4f} before"
        line = f"interpolated with the start, share {share:g}: {name} {value:.4f}{change}"
        print(f"spectra: {line}", file=sys.stderr, flush=True)


def _weights(model: SpectraSentenceTransformer) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in model.spectra.named_parameters() if name.startswith(_PARTS)]
