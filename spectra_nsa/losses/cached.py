"""More negatives than memory holds: the forward pass in parts, twice (Gao et al. 2021, GradCache).

Every part first runs without a graph. The loss over the whole batch gives the gradient of each output. Every part then
runs again, with its graph and the same random numbers, and back-propagates that gradient. Only one part's activations
exist at a time. Unlike sentence-transformers' cached losses, all named outputs of a pass are cached, and the parts hold
texts of similar length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import RandContext
from torch import Tensor, nn

from spectra_nsa.losses.whole_batch import own_rows, whole_outputs
from spectra_nsa.tokens.length_batches import Work, build_batch, equalize_passes, join_passes, plan_passes


@dataclass(frozen=True)
class CachedPass:
    """One batch whose forward pass has run without a graph and will run again.

    Attributes:
        outputs: for each column its outputs by name, without a graph.
        model: the model that ran.
        features: the columns.
        passes: the texts of each part, as (column, row).
        random: the random state before each part.
        autocast: enters the number format of the forward pass again.
        counted: the number of passes that count; the ones after them only keep other processes company.
        equal_passes: whether every pass needs its backward pass, even without a gradient (see `equalize_passes`).
    """

    outputs: list[dict[str, Tensor]]
    model: Callable[[dict[str, Any]], dict[str, Any]]
    features: Sequence[dict[str, Any]]
    passes: list[list[tuple[int, int]]]
    random: list[RandContext]
    autocast: Callable[[], AbstractContextManager[Any]]
    counted: int
    equal_passes: bool = False

    def backward(self, gradients: Sequence[dict[str, Tensor]], scale: Tensor) -> None:
        """Back-propagates the gradients of the outputs, times `scale`, to the weights.

        Args:
            gradients: for each column the gradients of its outputs by name; a missing one is zero.
            scale: of the whole loss, from accumulation and the fp16 scaler.
        """
        required = {name for column in gradients for name in column} if self.equal_passes else set()
        for index, (rows, state) in enumerate(zip(self.passes, self.random, strict=True)):
            with state, torch.enable_grad(), self.autocast():
                outputs = self.model(build_batch(self.features, rows))
            roots, root_gradients = [], []
            for name, value in outputs.items():
                parts = [gradients[column].get(name) if index < self.counted else None for column, _ in rows]
                if not value.requires_grad or (name not in required and all(part is None for part in parts)):
                    continue
                zero = torch.zeros_like(value[0])
                gradient = [zero if part is None else part[row] for part, (_, row) in zip(parts, rows, strict=True)]
                roots.append(value)
                root_gradients.append((torch.stack(gradient) * scale).to(value.dtype))
            if roots:
                torch.autograd.backward(roots, root_gradients)


def cached_pass(
    model: Callable[[dict[str, Any]], dict[str, Any]],
    features: Sequence[dict[str, Any]],
    tokens: int,
    names: Sequence[str],
    work: Work | None = None,
    equal_passes: bool = False,
) -> CachedPass:
    """Runs the model without a graph, in parts of at most `tokens` tokens, and records what a second run needs.

    Args:
        model: a SentenceTransformer.
        features: see `outputs_by_length`.
        tokens: the most tokens of a part, padding included.
        names: the outputs to keep.
        work: counts each text once, although it is computed twice; ``None`` counts nothing.
        equal_passes: whether all processes must run the same number of passes (see `equalize_passes`).
    """
    passes, idle = plan_passes(features, tokens=tokens), 0
    if equal_passes:
        passes, idle = equalize_passes(passes)
    counted = len(passes)
    passes = passes + idle * [passes[0][:1]]
    random, pieces = [], []
    for index, rows in enumerate(passes):
        part = build_batch(features, rows, work if index < counted else None)
        random.append(RandContext(*part.values()))
        with torch.no_grad():
            out = model(part)
        pieces.append({name: out[name] for name in names})
    outputs = join_passes(features, passes[:counted], pieces[:counted])
    autocast = _autocast_of(features[0]["input_ids"].device.type)
    return CachedPass(outputs, model, features, passes, random, autocast, counted, equal_passes)


def _autocast_of(device: str) -> Callable[[], AbstractContextManager[Any]]:
    enabled, kind = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    # Autocast must not reuse weights that were cast without a graph.
    return lambda: torch.autocast(device, dtype=kind, enabled=enabled, cache_enabled=False)


class GradientCache:
    """The gradient of a sum of terms at a batch's outputs, and at the parameters that terms read beside them.

    Args:
        run: the batch of this process.
        sizes: the number of rows of each process, by rank and column.
        weights: the parameters that terms read.
        norms: filled with the norm of each term's gradient; ``None`` measures nothing.
    """

    def __init__(
        self,
        run: CachedPass,
        sizes: Sequence[Sequence[int]],
        weights: Iterable[nn.Parameter],
        norms: dict[str, float] | None,
    ) -> None:
        self.run, self.sizes, self.norms = run, sizes, norms
        self.outputs = [
            {name: value.detach().requires_grad_() for name, value in column.items()}
            for column in whole_outputs(run.outputs, sizes)
        ]
        self._leaves = [leaf for column in self.outputs for leaf in column.values()]
        self._weights = [weight for weight in weights if weight.requires_grad]
        self._totals: list[Tensor | None] = [None] * (len(self._leaves) + len(self._weights))
        self._scale: Tensor | None = None  # of a loss whose gradient still has to reach the weights

    def take(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Adds the gradients of a term's values; returns the values without their graph."""
        for name, value in values.items():
            if not value.requires_grad:
                continue
            inputs = [*self._leaves, *self._weights]
            gradients = torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
            self._totals = [_sum(total, gradient) for total, gradient in zip(self._totals, gradients, strict=True)]
            if self.norms is not None:
                self.norms[name] = gradient_norm(gradients)
        return {name: value.detach() for name, value in values.items()}

    def deferred(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the values, tied so that back-propagating their sum, at any scale, runs the model again.

        With sharded weights the model runs only in `finish`. FSDP does not free what a forward pass inside a backward
        pass has gathered, so all layers would be in memory at once.
        """
        trigger = torch.zeros((), device=self._leaves[0].device, requires_grad=True)
        trigger.register_hook(self._keep if self.run.equal_passes else self._backward)
        first = next(iter(values))
        return {**values, first: values[first] + trigger}

    def _keep(self, scale: Tensor) -> None:
        self._scale = scale

    def finish(self) -> None:
        """Runs the model again if back-propagating has not; a second call does nothing."""
        if self._scale is not None:
            self._backward(self._scale)
            self._scale = None

    def _backward(self, scale: Tensor) -> None:
        totals = iter(self._totals)
        gradients = [
            {
                # times the number of processes, over which gradients are averaged afterwards
                name: own_rows(gradient, self.sizes, index) * len(self.sizes)
                for name in column
                if (gradient := next(totals)) is not None
            }
            for index, column in enumerate(self.outputs)
        ]
        self.run.backward(gradients, scale)
        for weight, gradient in zip(self._weights, totals, strict=True):
            if gradient is not None:
                weight.grad = _sum(weight.grad, gradient * scale)


def _sum(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if total is None else total if more is None else total + more


def gradient_norm(gradients: Iterable[Tensor | None]) -> float:
    """Returns the norm of all gradients as one vector."""
    return math.sqrt(sum(float(gradient.float().square().sum()) for gradient in gradients if gradient is not None))
