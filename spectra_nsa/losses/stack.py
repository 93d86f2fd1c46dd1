"""The loss stack: schedules the weights of named terms, runs the model, and calls the terms."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spectra_nsa.config.loss_sections import LossSection, MarginTermSection, RegularizerTermSection
from spectra_nsa.config.sparse_section import SparseSection
from spectra_nsa.config.terms import TERM_FACTS, Side, row_kind
from spectra_nsa.losses.activity import Activity
from spectra_nsa.losses.cached import GradientCache, cached_pass, gradient_norm
from spectra_nsa.losses.columns import check_cacheable, check_outputs, split_inputs
from spectra_nsa.losses.expert_load import OUTPUTS as LOAD_OUTPUTS
from spectra_nsa.losses.expert_load import ExpertLoad, balances
from spectra_nsa.losses.finite import NotFiniteError, agreed
from spectra_nsa.losses.terms import TERMS, Term, TermBatch
from spectra_nsa.losses.weights import TermWeights
from spectra_nsa.losses.whole_batch import sizes_of, whole_outputs, whole_scores
from spectra_nsa.tokens.length_batches import Work, outputs_by_length

if TYPE_CHECKING:
    from spectra_nsa.models.model import SpectraModel


class LossStack(nn.Module):
    """The weighted sum of named terms over one batch.

    Args:
        model: the model in training. The trainer may replace the attribute by its wrapper; only its forward pass is
            used.
        section: weights, start steps, ramps, temperatures.
        active: the terms that may take part; others are left out whatever their weight.
        dense: what terms of dense vectors read beside the outputs: parameters, and sizes of the entity vector. ``None``
            for a sparse encoder.
        sizes: the Matryoshka sizes of `embedding`.
        sparse: how sparse vectors are compared, and how many dimensions are to be active; ``None`` for dense ones.
        groups: forward passes for each batch; see `outputs_by_length`.
        cached: the most tokens of a forward pass, the loss being computed from cached outputs (see `losses/cached.py`);
            only the sum of the terms can be back-propagated then. ``None`` runs the model once.
        equal_passes: whether processes shard the encoder's weights, so that every process must run the same number of
            passes; then, with `cached`, `finish` follows the backward pass.
        distill_temperature: of the similarity distributions that are learned from teachers.
        teachers: width and weight of each teacher whose vectors stand side by side in a batch; terms of sparse vectors
            normalize the scores of each. Empty for a single teacher.
        sets: dataset → the terms that may take part in its batches; ``None`` allows all of them everywhere.

    Attributes:
        dataset: the dataset of the batch; ``None`` if there is only one.

    Raises:
        UsageError: a term that cannot be cached.
    """

    def __init__(
        self,
        model: nn.Module,
        section: LossSection,
        *,
        active: Collection[str],
        dense: SpectraModel | None = None,
        sizes: Sequence[int] = (),
        sparse: SparseSection | None = None,
        groups: int | None = None,
        cached: int | None = None,
        equal_passes: bool = False,
        distill_temperature: float = 0.05,
        teachers: Sequence[tuple[int, float]] = (),
        sets: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.section = section
        shape = None if dense is None else dense.config.encoder_spec()
        self.experts = None if shape is None or shape.ffn != "moe" else ExpertLoad(shape)
        active = [name for name in active if not TERM_FACTS[name].routing or balances(shape, name)]
        self.active = tuple(name for name in TERM_FACTS if name in active and section.terms[name].weight > 0)
        self.sizes = tuple(sizes)
        self.groups = groups
        self.cached = cached
        self.equal_passes = equal_passes
        self.distill_temperature = distill_temperature
        self.teachers = tuple(teachers)
        self.sparse = sparse
        self.activity = None
        if sparse is not None:
            self.activity = Activity({"query": sparse.query_active, "document": sparse.document_active})
        self._weights = TermWeights(section, self.active, self.activity)
        if cached is not None:
            check_cacheable(self.active)
        self.entity_sizes = tuple(dense.config.entity_dims) if dense is not None else ()
        # Looked up anew at each step, because sharding replaces the parameters of a module; not a second submodule.
        self._parameter = dense.get_parameter if dense is not None else None
        self._token_embedding = getattr(model, "token_embedding", None) if dense is None else dense.get_input_embeddings
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
        """Returns a term's weight at this step (see `TermWeights.at`)."""
        return self._weights.at(name, self.step, self.steps)

    @property
    def figures(self) -> dict[str, float]:
        """What is worth logging beside the terms (see `TermWeights.figures`)."""
        return self._weights.figures(self.step, self.steps)

    def state(self) -> dict[str, Any]:
        """Returns numbers and tensors that a checkpoint holds, so that `restore` continues bit for bit."""
        state = {} if self.activity is None else self.activity.state()
        return state if self.experts is None else state | {"experts": self.experts.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a state."""
        if self.activity is not None:
            self.activity.restore(state)
        if self.experts is not None:
            self.experts.restore(state.get("experts", {}))

    def forward(self, features: Iterable[dict[str, Any]], labels: Tensor | None = None) -> dict[str, Tensor]:
        """Returns the weighted terms by name; the trainer adds them up and logs each.

        Args:
            features: tokenized columns: anchor, positive, and any negatives; or a single one. Each may hold the
                distillation inputs of its texts.
            labels: (B,) scores from 0 to 1 of the pairs in two columns; ``None`` if the texts of a row match.

        Raises:
            NotFiniteError: an output of the model, or a term, is not finite; the message names it.
            SpectraError: sparse vectors have fallen silent.
        """
        columns, inputs = split_inputs(features)
        live = self._live(len(columns), labels is not None, inputs[-1])
        observed = () if self.experts is None else LOAD_OUTPUTS
        names = sorted({*observed, *(output for term in live for output in term.outputs)})
        detached = {term.head for term in live if term.head and not self.section.terms[term.name].train_encoder}
        asked = {"spectra_outputs": tuple(names), "spectra_detached": tuple(sorted(detached))}
        columns = [column | asked for column in columns]
        parameters = self._read_parameters(live)
        sizes = sizes_of(columns)
        self._cache = cache = None
        if self.cached is not None and torch.is_grad_enabled():
            run = cached_pass(self.model, columns, self.cached, names, self.work, self.equal_passes)
            self._cache = cache = GradientCache(run, sizes, parameters.values(), self.gradient_norms)
            outputs = cache.outputs
        else:
            outputs = whole_outputs(self._run_model(columns, names), sizes)
        inputs = whole_outputs(inputs, sizes)
        scores = None if labels is None else whole_scores(labels, sizes)
        with agreed():
            check_outputs(outputs)
            if self.activity is not None and torch.is_grad_enabled() and "sparse" in names:
                self.activity.observe([column["sparse"] for column in outputs], self.step, self.steps)
            if self.experts is not None and torch.is_grad_enabled():
                self.experts.observe(outputs, self.step)
            batch = self._batch(outputs, inputs, scores, parameters)
            values = self._values(live, batch, cache)
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
        chosen = [name for name in self.active if name in allowed or TERM_FACTS[name].side is not None]
        names = [name for name in chosen if self.weight(name)]
        return [TERMS[name] for name in names if TERM_FACTS[name].applies(rows, inputs)]

    def _read_parameters(self, live: Iterable[Term]) -> dict[str, nn.Parameter]:
        names = {name for term in live for name in term.parameters}
        assert self._parameter is not None or not names
        return {name: self._parameter(name) for name in names} if self._parameter is not None else {}

    def _run_model(self, columns: list[dict[str, Any]], names: list[str]) -> list[dict[str, Tensor]]:
        # On a GPU the gradients of lookups cost next to nothing, and finding the tokens in use would stall the queue.
        table = self._token_embedding() if self._token_embedding is not None else None
        if table is not None and next(table.parameters()).device.type != "cpu":
            table = None
        return outputs_by_length(self.model, columns, self.groups, names, self.work, table, self.equal_passes)

    def _batch(
        self,
        outputs: Sequence[Mapping[str, Tensor]],
        inputs: Sequence[Mapping[str, Tensor]],
        scores: Tensor | None,
        parameters: Mapping[str, Tensor],
    ) -> TermBatch:
        return TermBatch(
            outputs=outputs,
            inputs=inputs,
            scores=scores,
            parameters=parameters,
            sizes=self.sizes,
            entity_sizes=self.entity_sizes,
            temperature=self.temperature,
            distill_temperature=self.distill_temperature,
            progress=self.progress,
            both_directions=self.section.both_directions,
            teachers=self.teachers,
            scale=1.0 if self.sparse is None else self.sparse.scale,
            teacher_scale=1.0 if self.sparse is None else self.sparse.teacher_scale,
            frequencies={} if self.activity is None else self.activity.frequencies(),
            load=self.experts.for_balance() if self.experts is not None and torch.is_grad_enabled() else None,
        )

    def _values(self, live: Iterable[Term], batch: TermBatch, cache: GradientCache | None) -> dict[str, Tensor]:
        """Returns the values of the terms; the first weight of regularizers depends on the values of the others."""
        values: dict[str, Tensor] = {}
        regularizers = [term for term in live if TERM_FACTS[term.name].side is not None]
        for term in live:
            if term not in regularizers:
                values |= self._weighted(term, batch, cache)
        loss = sum(float(value.detach()) for value in values.values()) if regularizers else 0.0
        self._start_regularizers(regularizers, batch, loss)
        for term in regularizers:
            values |= self._weighted(term, batch, cache)
        return values

    def _start_regularizers(self, regularizers: Iterable[Term], batch: TermBatch, loss: float) -> None:
        penalties: dict[Side, dict[str, Tensor]] = {}
        for term in regularizers:
            side = TERM_FACTS[term.name].side
            if side is not None and self.activity is not None and not self.activity.sides[side].started:
                with torch.no_grad():
                    penalties.setdefault(side, {}).update(self._raw(term, batch))
        if penalties:
            self._weights.start(loss, penalties)

    def _weighted(self, term: Term, batch: TermBatch, cache: GradientCache | None) -> dict[str, Tensor]:
        """Returns a term's values; a cache takes their gradients at once, so that the term's matrices are freed."""
        weight = self.weight(term.name)
        values = {name: weight * value for name, value in self._raw(term, batch).items()}
        for name, value in values.items():
            if not torch.isfinite(value):
                raise NotFiniteError(f"the term {name!r} is {value.item()}, from {' and '.join(term.outputs)}")
        return values if cache is None else cache.take(values)

    def _raw(self, term: Term, batch: TermBatch) -> dict[str, Tensor]:
        """Returns a term's values before they are weighted."""
        settings = self.section.terms[term.name]
        if isinstance(settings, MarginTermSection):
            batch = replace(batch, margin=settings.margin)
        if isinstance(settings, RegularizerTermSection):
            batch = replace(batch, threshold=settings.threshold)
        return term.values(batch)

    def _measure(self, values: Mapping[str, Tensor], batch: TermBatch, names: list[str]) -> None:
        """Measures the norm of each weighted term's gradient at the outputs, without a backward pass below them."""
        assert self.gradient_norms is not None
        inputs = [column[name] for column in batch.outputs for name in names if column[name].requires_grad]
        inputs += [weight for weight in batch.parameters.values() if weight.requires_grad]
        for name, value in values.items():
            if value.requires_grad and inputs:
                self.gradient_norms[name] = gradient_norm(
                    torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
                )
