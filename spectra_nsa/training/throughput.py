"""How fast this machine trains this model on this data, from a few steps that are thrown away."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from spectra_nsa.config.recipe import Recipe
from spectra_nsa.losses.info_nce import InfoNCE
from spectra_nsa.training.precision import autocast, resolve_precision

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer


def seconds_per_step(recipe: Recipe, model: SpectraSentenceTransformer, rows: Dataset, steps: int = 7) -> float:
    """The median seconds of a training step: forward, backward, optimiser. The model is changed: use a copy.

    Args:
        recipe: batch size, precision, length groups.
        model: a model that is not needed afterwards.
        rows: columns anchor, positive and any negatives; at least `steps` batches are best.
        steps: steps that count, after one that warms up.
    """
    section = recipe.train
    precision = resolve_precision(section.precision)
    sizes = model.spectra.config.semantic_dims or [model.spectra.config.projection_dim]
    loss = InfoNCE(model, temperature=recipe.loss.temperature, sizes=sizes, groups=section.length_groups)
    cut: dict[str, Any] = {}
    if section.max_length is not None:
        cut = {"processing_kwargs": {"text": {"max_length": section.max_length, "truncation": True}}}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6)
    model.train()
    seconds = []
    for step in range(steps + 1):
        began = time.perf_counter()
        first = step * section.batch % max(1, len(rows) - section.batch)
        batch = rows[first : first + section.batch]
        with autocast(model.device.type, precision):
            features = [model.preprocess(list(texts), **cut) for texts in batch.values()]
            total = torch.stack(list(loss(features).values())).sum()
        total.backward()
        optimiser.step()
        optimiser.zero_grad()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])
