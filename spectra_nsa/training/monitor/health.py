"""The health of a model in training, on a small sample of texts that stays the same for the whole run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from sentence_transformers.util import batch_to_device

from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.precision import autocast
from spectra_nsa.metrics.health import anchor_health, bit_health, embedding_health
from spectra_nsa.models.encode import encode_texts, shortest_first
from spectra_nsa.training.data.rows import TrainingData

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer

_BATCH = 32
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "prompt_length")
_OUTPUTS = ("embedding", "anchor64", "fast")


class HealthSample:
    """Pairs with distinct anchors, and what the model makes of them.

    Args:
        data: the held-out pairs where there are any, else the training rows, are drawn from.
        rows: how many pairs at most.
        seed: of the draw.
        precision: see `resolve_precision`.
    """

    def __init__(self, data: TrainingData, rows: int, *, seed: int, precision: str) -> None:
        source = data.dev if data.dev is not None and data.scored == (data.dev_kind == "scored") else data.train
        self.anchors, self.positives = _distinct_pairs(source, rows, seed)
        self.precision = precision

    def measure(self, model: SpectraSentenceTransformer) -> dict[str, float]:
        """The figures of `metrics.health`, and the mean attention entropy of each layer that measures it.

        Costs a forward pass over the sample. Nothing of the training changes: not the mode, not the random state.

        Returns:
            name → figure, under `health_`; what is undefined is left out.
        """
        with _at_rest(model), autocast(model.device.type, self.precision):
            anchors, entropies = self._outputs(model, self.anchors, "query")
            positives, _ = self._outputs(model, self.positives, "document")
        figures = embedding_health(anchors["embedding"], positives["embedding"])
        if self.anchors == self.positives:  # single texts
            figures.pop("alignment", None)
        figures |= anchor_health(np.concatenate([anchors["anchor64"], positives["anchor64"]]))
        figures |= bit_health(np.concatenate([anchors["fast"], positives["fast"]]))
        figures |= {f"attention_entropy_{layer}": value for layer, value in entropies.items()}
        return {f"health_{name}": round(value, 5) + 0.0 for name, value in figures.items() if math.isfinite(value)}

    def _outputs(
        self, model: SpectraSentenceTransformer, texts: list[str], prompt: str
    ) -> tuple[dict[str, np.ndarray], dict[int, float]]:
        """Named outputs, rows in the order of the texts, and entropies by layer, counted from 1."""
        sums: dict[int, float] = {}
        tokens = 0

        def compute(batch: list[str]) -> dict[str, torch.Tensor]:
            nonlocal tokens
            features = batch_to_device(model.preprocess(batch, prompt=model.prompts.get(prompt) or None), model.device)
            given = {name: features[name] for name in _INPUTS if name in features}
            out = model.spectra(**given, outputs=_OUTPUTS, output_hidden_states=True)
            mask_BT = given["attention_mask"].bool()
            tokens += int(mask_BT.sum())
            for layer, signals in enumerate(out.signals, start=1):
                if signals.entropy_BHT is not None:
                    sums[layer] = sums.get(layer, 0.0) + float(signals.entropy_BHT.float().mean(1)[mask_BT].sum())
            return {name: out[name] if name == "fast" else out[name].float() for name in _OUTPUTS}  # bits stay bytes

        arrays = encode_texts(texts, compute, _OUTPUTS, batch_size=_BATCH, order=shortest_first(texts))
        return arrays, {layer: total / tokens for layer, total in sums.items()}


def _distinct_pairs(source: Dataset, rows: int, seed: int) -> tuple[list[str], list[str]]:
    """Up to `rows` pairs drawn without replacement, no anchor twice; of scored pairs those with the highest scores."""
    drawn = source.select(sorted(np.random.default_rng(seed).permutation(len(source))[: 4 * rows].tolist()))
    scored = SCORE_COLUMN in source.column_names
    if "text" in source.column_names:  # a text is its own match
        one = other = "text"
    else:
        one, other = ("sentence1", "sentence2") if scored else ("anchor", "positive")
    pairs: dict[str, str] = {}
    for row in sorted(drawn, key=lambda row: -row[SCORE_COLUMN]) if scored else drawn:
        if len(pairs) < rows:
            pairs.setdefault(row[one], row[other])
    return list(pairs), list(pairs.values())


@contextmanager
def _at_rest(model: SpectraSentenceTransformer) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
