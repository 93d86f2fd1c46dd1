"""The health of a model in training, measured on a small sample of texts that is fixed for the whole run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers.util import batch_to_device
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.precision import autocast
from spectra_nsa.metrics.health import anchor_health, bit_health, embedding_health
from spectra_nsa.models.encoding.loop import encode_texts
from spectra_nsa.models.prompts import column_prompts
from spectra_nsa.training.data.rows import TrainingData

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.models.sentence import SpectraSentenceTransformer

_BATCH = 32
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "prompt_length")
_OUTPUTS = ("embedding", "anchor64", "fast")


class HealthProbe(TrainerCallback):
    """Logs health figures before the first step, every so often and after the last step.

    Args:
        measure: returns the figures; called in the first process only.
        every: steps between two measurements.
        log: logs figures, as `Trainer.log` does.
        gathered: the context in which one process may use a sharded model without the others.
    """

    def __init__(
        self,
        measure: Callable[[], dict[str, float]],
        every: int,
        log: Callable[[dict[str, float]], None],
        gathered: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.measure, self.every, self.log, self.gathered = measure, every, log, gathered
        self.begun = False

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.begun and state.global_step == 0:
            self._probe(state, control)
        self.begun = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._probe(state, control)

    def _probe(self, state: TrainerState, control: TrainerControl) -> None:
        with self.gathered():
            if not state.is_world_process_zero:
                return
            figures = self.measure()
        requested = control.should_log
        self.log(figures)
        control.should_log = requested  # logging resets it, and the step's own log is still to come


class HealthSample:
    """A sample of pairs with distinct anchors, on which a model's health is measured.

    Args:
        data: its held-out pairs are drawn from, or its training rows if it has no held-out pairs of the same kind.
        rows: the most pairs.
        seed: decides which pairs are drawn.
        precision: see `resolve_precision`.
    """

    def __init__(self, data: TrainingData, rows: int, *, seed: int, precision: str) -> None:
        source = data.dev if data.dev is not None and data.scored == (data.dev_kind == "scored") else data.train
        self.columns = pair_columns(source)
        self.anchors, self.positives = distinct_pairs(source, self.columns, rows, seed)
        self.precision = precision

    def measure(self, model: SpectraSentenceTransformer) -> dict[str, float]:
        """Returns the figures of `metrics.health`, and the mean attention entropy of each layer that measures it.

        Costs a forward pass over the sample. The mode of the model and the random state stay as they are.

        Returns:
            name → figure; names begin with `health_`, and undefined figures are left out.
        """
        with _eval_mode(model), autocast(model.device.type, self.precision):
            prompts = column_prompts(model.prompts, self.columns)
            anchors, entropies = self._outputs(model, self.anchors, prompts.get(self.columns[0]))
            positives, _ = self._outputs(model, self.positives, prompts.get(self.columns[1]))
        figures = embedding_health(anchors["embedding"], positives["embedding"])
        if self.anchors == self.positives:  # single texts
            figures.pop("alignment", None)
        figures |= anchor_health(np.concatenate([anchors["anchor64"], positives["anchor64"]]))
        figures |= bit_health(np.concatenate([anchors["fast"], positives["fast"]]))
        figures |= {f"attention_entropy_{layer}": value for layer, value in entropies.items()}
        return {f"health_{name}": round(value, 5) + 0.0 for name, value in figures.items() if math.isfinite(value)}

    def _outputs(
        self, model: SpectraSentenceTransformer, texts: list[str], prompt: str | None
    ) -> tuple[dict[str, np.ndarray], dict[int, float]]:
        """Returns named outputs, rows in the order of the texts, and the mean entropy by layer, counted from 1."""
        sums: dict[int, float] = {}
        tokens = 0

        def compute(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
            nonlocal tokens
            features = batch_to_device(batch, model.device)
            inputs = {name: features[name] for name in _INPUTS if name in features}
            out = model.spectra(**inputs, outputs=_OUTPUTS, output_hidden_states=True)
            mask_BT = inputs["attention_mask"].bool()
            tokens += int(mask_BT.sum())
            for layer, signals in enumerate(out.signals, start=1):
                if signals.entropy_BHT is not None:
                    sums[layer] = sums.get(layer, 0.0) + float(signals.entropy_BHT.float().mean(1)[mask_BT].sum())
            return {name: out[name] if name == "fast" else out[name].float() for name in _OUTPUTS}  # bits stay bytes

        tokenize = partial(model.preprocess, prompt=prompt)
        arrays = encode_texts(texts, tokenize, compute, _OUTPUTS, batch_size=_BATCH)
        return arrays, {layer: total / tokens for layer, total in sums.items()}


def pair_columns(source: Dataset) -> tuple[str, str]:
    """Returns the two columns whose texts are compared; a single text is its own match."""
    if "text" in source.column_names:  # a text is its own match
        return "text", "text"
    return ("sentence1", "sentence2") if SCORE_COLUMN in source.column_names else ("anchor", "positive")


def distinct_pairs(source: Dataset, columns: tuple[str, str], rows: int, seed: int) -> tuple[list[str], list[str]]:
    """Draws up to `rows` pairs with distinct anchors; of scored pairs those with the highest scores."""
    drawn = source.select(sorted(np.random.default_rng(seed).permutation(len(source))[: 4 * rows].tolist()))
    scored = SCORE_COLUMN in source.column_names
    first, second = columns
    pairs: dict[str, str] = {}
    for row in sorted(drawn, key=lambda row: -row[SCORE_COLUMN]) if scored else drawn:
        if len(pairs) < rows:
            pairs.setdefault(row[first], row[second])
    return list(pairs), list(pairs.values())


@contextmanager
def _eval_mode(model: SpectraSentenceTransformer) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
