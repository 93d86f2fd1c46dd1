"""A trained encoder drawn back towards its start, which keeps more of what it knew."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spectra_nsa.core import processes

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.training.loop.trainer import RunTrainer

_PARTS = ("encoder.", "pooling.", "semantic.")  # a head is born with random weights: its start is worth nothing


def start_weights(model: SpectraSentenceTransformer) -> dict[str, Tensor]:
    """A copy of the weights that `draw_back` draws to."""
    return {name: weight.detach().clone() for name, weight in _weights(model)}


@torch.no_grad()
def draw_back(trainer: RunTrainer, model: SpectraSentenceTransformer, start: dict[str, Tensor], share: float) -> None:
    """θ ← θ₀ + α (θ − θ₀) for encoder, pooling and semantic projection, in place (WiSE-FT, Wortsman et al. 2022).

    The dev metric is taken anew and stands as the run's best from then on, since it is the kept model's.

    Args:
        trainer: with a dev metric or without.
        model: as training left it.
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
        was = "" if before is None else f", {before:.4f} before"
        print(f"spectra: {share:g} of the way from the start: {name} {value:.4f}{was}", file=sys.stderr, flush=True)


def _weights(model: SpectraSentenceTransformer) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in model.spectra.named_parameters() if name.startswith(_PARTS)]
