"""More negatives than memory holds: the forward pass in parts, twice (Gao et al. 2021, GradCache).

First every part runs without a graph; the loss over the whole batch gives the gradient of each output; then every part
runs again, with its graph and under the same random numbers, and passes that gradient on. Only one part's activations
exist at a time. What differs from sentence-transformers' cached losses: all named outputs of a pass are cached, not one
vector, and the parts hold texts of like length.
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
from spectra_nsa.tokens.length_batches import Work, batch_of, by_column, evened, passes_of


@dataclass(frozen=True)
class CachedPass:
    """One batch whose forward pass has run without a graph and will run again.

    Attributes:
        outputs: for each column its outputs by name, without a graph.
        model: what gave them.
        features: the columns.
        passes: which texts each part holds, as (column, row).
        random: the random state before each part.
        autocast: the number format of the forward pass, to be entered anew.
        counted: how many of the passes count; those after them are made because other processes make them.
        together: whether every pass has to have its backward pass, whatever it is worth (see `evened`).
    """

    outputs: list[dict[str, Tensor]]
    model: Callable[[dict[str, Any]], dict[str, Any]]
    features: Sequence[dict[str, Any]]
    passes: list[list[tuple[int, int]]]
    random: list[RandContext]
    autocast: Callable[[], AbstractContextManager[Any]]
    counted: int
    together: bool = False

    def backward(self, gradients: Sequence[dict[str, Tensor]], scale: Tensor) -> None:
        """Adds to the weights' gradients what `scale` times the gradients of the outputs gives.

        Args:
            gradients: for each column the gradient of its outputs by name; what is left out gets none.
            scale: of the whole loss: accumulation's and the fp16 scaler's.
        """
        asked = {name for column in gradients for name in column} if self.together else set()
        for place, (rows, state) in enumerate(zip(self.passes, self.random, strict=True)):
            with state, torch.enable_grad(), self.autocast():
                found = self.model(batch_of(self.features, rows))
            roots, their_gradients = [], []
            for name, value in found.items():
                parts = [gradients[column].get(name) if place < self.counted else None for column, _ in rows]
                if not value.requires_grad or (name not in asked and all(part is None for part in parts)):
                    continue
                zero = torch.zeros_like(value[0])
                wanted = [zero if part is None else part[row] for part, (_, row) in zip(parts, rows, strict=True)]
                roots.append(value)
                their_gradients.append((torch.stack(wanted) * scale).to(value.dtype))
            if roots:
                torch.autograd.backward(roots, their_gradients)


def cached_pass(
    model: Callable[[dict[str, Any]], dict[str, Any]],
    features: Sequence[dict[str, Any]],
    tokens: int,
    names: Sequence[str],
    work: Work | None = None,
    together: bool = False,
) -> CachedPass:
    """Runs the model without a graph, in parts of at most `tokens` tokens, and remembers how.

    Args:
        model: a SentenceTransformer.
        features: see `outputs_by_length`.
        tokens: the most tokens a part, padding included.
        names: what to keep of the model's outputs.
        work: counts each text once, though it is computed twice; ``None`` for no counting.
        together: whether all processes have to make equally many passes (see `evened`).
    """
    passes, idle = passes_of(features, tokens=tokens), 0
    if together:
        passes, idle = evened(passes)
    counted = len(passes)
    passes = passes + idle * [passes[0][:1]]
    random, pieces = [], []
    for place, rows in enumerate(passes):
        part = batch_of(features, rows, work if place < counted else None)
        random.append(RandContext(*part.values()))
        with torch.no_grad():
            out = model(part)
        pieces.append({name: out[name] for name in names})
    outputs = by_column(features, passes[:counted], pieces[:counted])
    autocast = _autocast_of(features[0]["input_ids"].device.type)
    return CachedPass(outputs, model, features, passes, random, autocast, counted, together)


def _autocast_of(device: str) -> Callable[[], AbstractContextManager[Any]]:
    enabled, kind = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    # Weights that were cast without a graph must not be found in autocast's cache when the graph is wanted.
    return lambda: torch.autocast(device, dtype=kind, enabled=enabled, cache_enabled=False)


class GradientCache:
    """The gradient of a sum of terms at a batch's outputs, and at the weights that terms use beside them.

    Args:
        run: the batch of this process.
        sizes: how many rows each process has, by rank and column.
        weights: those of the model.
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
        self._scale: Tensor | None = None  # of a loss that was back-propagated, and still has to reach the weights

    def take(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Adds the gradients of a term's values, which are returned without their graph."""
        for name, value in values.items():
            if not value.requires_grad:
                continue
            found = torch.autograd.grad(value, [*self._leaves, *self._weights], retain_graph=True, allow_unused=True)
            self._totals = [_sum(total, gradient) for total, gradient in zip(self._totals, found, strict=True)]
            if self.norms is not None:
                self.norms[name] = gradient_norm(found)
        return {name: value.detach() for name, value in values.items()}

    def deferred(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values, tied so that back-propagating their sum, scaled in whatever way, runs the model again.

        Where weights are shared out it runs only with `finish`: FSDP would not let go of what a forward pass inside of
        a backward pass has gathered, and all layers would be whole at once.
        """
        trigger = torch.zeros((), device=self._leaves[0].device, requires_grad=True)
        trigger.register_hook(self._keep if self.run.together else self._backward)
        first = next(iter(values))
        return {**values, first: values[first] + trigger}

    def _keep(self, scale: Tensor) -> None:
        self._scale = scale

    def finish(self) -> None:
        """Runs the model again, where back-propagating has not; does nothing the second time."""
        if self._scale is not None:
            self._backward(self._scale)
            self._scale = None

    def _backward(self, scale: Tensor) -> None:
        found = iter(self._totals)
        gradients = [
            {
                # a process's rows count for all: the gradients are averaged over processes afterwards
                name: own_rows(gradient, self.sizes, place) * len(self.sizes)
                for name in column
                if (gradient := next(found)) is not None
            }
            for place, column in enumerate(self.outputs)
        ]
        self.run.backward(gradients, scale)
        for weight, gradient in zip(self._weights, found, strict=True):
            if gradient is not None:
                weight.grad = _sum(weight.grad, gradient * scale)


def _sum(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if total is None else total if more is None else total + more


def gradient_norm(gradients: Iterable[Tensor | None]) -> float:
    """The norm of all of them as one vector."""
    return math.sqrt(sum(float(gradient.float().square().sum()) for gradient in gradients if gradient is not None))
