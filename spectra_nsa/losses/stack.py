"""The loss stack: schedules the weights of named terms, runs the model, and calls the terms."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spectra_nsa.config.loss_sections import LossSection, MarginTermSection
from spectra_nsa.config.terms import DISTILLATION_INPUTS, TERM_FACTS, row_kind
from spectra_nsa.core.errors import UsageError
from spectra_nsa.losses.cached import GradientCache, cached_pass, gradient_norm
from spectra_nsa.losses.finite import NotFiniteError, agreed
from spectra_nsa.losses.terms import TERMS, Term, TermBatch
from spectra_nsa.losses.whole_batch import sizes_of, whole_outputs, whole_scores
from spectra_nsa.tokens.length_batches import Work, outputs_by_length

if TYPE_CHECKING:
    from spectra_nsa.models.sentence import SpectraSentenceTransformer


class LossStack(nn.Module):
    """The weighted sum of named terms over one batch.

    Args:
        model: the model in training. The trainer may replace the attribute by its wrapper; only its forward pass is
            used.
        section: weights, start steps, ramps, temperatures.
        active: the terms that may take part; others are left out whatever their weight.
        sizes: the Matryoshka sizes of `embedding`.
        groups: forward passes for each batch; see `outputs_by_length`.
        cached: the most tokens of a forward pass, the loss being computed from cached outputs (see `losses/cached.py`);
            only the sum of the terms can be back-propagated then. ``None`` runs the model once.
        equal_passes: whether processes shard the encoder's weights, so that every process must run the same number of
            passes; then, with `cached`, `finish` follows the backward pass.
        distill_temperature: of the similarity distributions that are learned from teachers.
        sets: dataset → the terms that may take part in its batches; ``None`` allows all of them everywhere.

    Attributes:
        dataset: the dataset of the batch; ``None`` if there is only one.

    Raises:
        UsageError: a term that cannot be cached.
    """

    def __init__(
        self,
        model: SpectraSentenceTransformer,
        section: LossSection,
        *,
        active: Collection[str],
        sizes: Sequence[int],
        groups: int | None = None,
        cached: int | None = None,
        equal_passes: bool = False,
        distill_temperature: float = 0.05,
        sets: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.section = section
        self.active = tuple(name for name in TERM_FACTS if name in active and section.terms[name].weight > 0)
        self.sizes = tuple(sizes)
        self.groups = groups
        self.cached = cached
        self.equal_passes = equal_passes
        self.distill_temperature = distill_temperature
        if cached is not None:
            _check_cacheable(self.active)
        spectra = model.spectra
        self.entity_sizes = tuple(spectra.config.entity_dims)
        # Looked up anew at each step: sharding replaces the parameters of a module.
        self._parameter = spectra.get_parameter
        self._token_embedding = spectra.get_input_embeddings
        self.sets = {**(sets or {})}
        self.dataset: str | None = None
        self.step, self.steps = 0, 1
        self.work = Work()
        self.gradient_norms: dict[str, float] | None = None  # filled at each step if it is a dict
        self._cache: GradientCache | None = None  # of the last forward pass

    @property
    def progress(self) -> float:
        """The share of the schedule that is done, 0 to 1."""
        return min(1.0, self.step / max(1, self.steps))

    @property
    def temperature(self) -> float:
        """τ at this step: on a half cosine from the first to the last."""
        last = self.section.temperature
        first = self.section.temperature_start or last
        return last + (first - last) * (1 + math.cos(math.pi * self.progress)) / 2

    def weight(self, name: str) -> float:
        """Returns a term's weight at this step: 0 before its start, then rising over its ramp."""
        term = self.section.terms[name]
        if self.step < term.start:
            return 0.0
        return term.weight * min(1.0, (self.step - term.start + 1) / (term.ramp + 1))

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Returns the weighted terms by name; the trainer adds them up and logs each.

        Args:
            features: tokenized columns: anchor, positive, and any negatives; or a single one. Each may hold the
                distillation inputs of its texts.
            labels: (B,) scores from 0 to 1 of the pairs in two columns; ``None`` if the texts of a row match.

        Raises:
            NotFiniteError: an output of the model, or a term, is not finite; the message names it.
        """
        columns, inputs = _split_inputs(features)
        live = self._live(len(columns), labels is not None, inputs[-1])
        names = sorted({output for term in live for output in term.outputs})
        detached = {term.head for term in live if term.head and not self.section.terms[term.name].train_encoder}
        asked = {"spectra_outputs": tuple(names), "spectra_detached": tuple(sorted(detached))}
        columns = [column | asked for column in columns]
        parameters = {name: self._parameter(name) for term in live for name in term.parameters}
        sizes = sizes_of(columns)
        self._cache = cache = None
        if self.cached is not None and torch.is_grad_enabled():
            run = cached_pass(self.model, columns, self.cached, names, self.work, self.equal_passes)
            self._cache = cache = GradientCache(run, sizes, parameters.values(), self.gradient_norms)
            outputs = cache.outputs
        else:
            outputs = whole_outputs(self._run_model(columns, names), sizes)
        batch = TermBatch(
            outputs=outputs,
            inputs=whole_outputs(inputs, sizes),
            scores=None if labels is None else whole_scores(labels, sizes),
            parameters=parameters,
            sizes=self.sizes,
            entity_sizes=self.entity_sizes,
            temperature=self.temperature,
            distill_temperature=self.distill_temperature,
            progress=self.progress,
            both_directions=self.section.both_directions,
        )
        values: dict[str, Tensor] = {}
        with agreed():
            _check_outputs(outputs)
            for term in live:
                values |= self._weighted(term, batch, cache)
        if cache is not None:
            return cache.deferred(values)
        if self.gradient_norms is not None:
            self._measure(values, batch, names)
        return values

    def finish(self) -> None:
        """Completes the backward pass if back-propagating has left part of it (see `GradientCache.deferred`)."""
        if self._cache is not None:
            self._cache.finish()
            self._cache = None

    def _live(self, texts: int, scored: bool, inputs: Collection[str]) -> list[Term]:
        """Returns the terms that have a weight at this step and apply to such rows."""
        rows = row_kind(texts, scored)
        allowed = self.active if self.dataset is None else self.sets.get(self.dataset, self.active)
        names = [name for name in self.active if name in allowed and self.weight(name)]
        return [TERMS[name] for name in names if TERM_FACTS[name].applies(rows, inputs)]

    def _run_model(self, columns: list[dict[str, Any]], names: list[str]) -> list[dict[str, Tensor]]:
        # On a GPU the gradients of lookups cost next to nothing, and finding the tokens in use would stall the queue.
        table = self._token_embedding()
        on_cpu = next(table.parameters()).device.type == "cpu"
        return outputs_by_length(
            self.model, columns, self.groups, names, self.work, table if on_cpu else None, self.equal_passes
        )

    def _weighted(self, term: Term, batch: TermBatch, cache: GradientCache | None) -> dict[str, Tensor]:
        """Returns a term's values; a cache takes their gradients at once, so that the term's matrices are freed."""
        settings, weight = self.section.terms[term.name], self.weight(term.name)
        if isinstance(settings, MarginTermSection):
            batch = replace(batch, margin=settings.margin)
        values = {name: weight * value for name, value in term.values(batch).items()}
        for name, value in values.items():
            if not torch.isfinite(value):
                raise NotFiniteError(f"the term {name!r} is {value.item()}, from {' and '.join(term.outputs)}")
        return values if cache is None else cache.take(values)

    def _measure(self, values: Mapping[str, Tensor], batch: TermBatch, names: list[str]) -> None:
        """Measures the norm of each weighted term's gradient at the outputs, without a backward pass below them."""
        assert self.gradient_norms is not None
        inputs = [column[name] for column in batch.outputs for name in names if column[name].requires_grad]
        inputs += batch.parameters.values()
        for name, value in values.items():
            if value.requires_grad and inputs:
                self.gradient_norms[name] = gradient_norm(
                    torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
                )


def _check_cacheable(names: Iterable[str]) -> None:
    for name in names:
        if not TERM_FACTS[name].cacheable:
            raise UsageError(
                f"train.cached_pass_tokens: the term {name!r} needs more than the model's outputs. Turn one "
                f"of them off: loss.terms.{name}.weight=0 or train.cached_pass_tokens=null."
            )


def _check_outputs(outputs: Sequence[Mapping[str, Tensor]]) -> None:
    for column in outputs:
        for name, value in column.items():
            if not torch.isfinite(value).all():
                raise NotFiniteError(f"the model's output {name!r} is not finite")


def _split_inputs(features: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Tensor]]]:
    """Returns for each column what the model is given, and the distillation inputs in fp32."""
    columns = list(features)
    inputs = [{name: column[name].float() for name in DISTILLATION_INPUTS if name in column} for column in columns]
    return [
        {name: value for name, value in column.items() if name not in DISTILLATION_INPUTS} for column in columns
    ], inputs
