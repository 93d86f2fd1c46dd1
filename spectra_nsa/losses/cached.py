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
from spectra_nsa.models.length_groups import Work, batch_of, by_column, passes_of


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
    """

    outputs: list[dict[str, Tensor]]
    model: Callable[[dict[str, Any]], dict[str, Any]]
    features: Sequence[dict[str, Any]]
    passes: list[list[tuple[int, int]]]
    random: list[RandContext]
    autocast: Callable[[], AbstractContextManager[Any]]

    def backward(self, gradients: Sequence[dict[str, Tensor]], scale: Tensor) -> None:
        """Adds to the weights' gradients what `scale` times the gradients of the outputs gives.

        Args:
            gradients: for each column the gradient of its outputs by name; what is left out gets none.
            scale: of the whole loss: accumulation's and the fp16 scaler's.
        """
        for rows, state in zip(self.passes, self.random, strict=True):
            with state, torch.enable_grad(), self.autocast():
                found = self.model(batch_of(self.features, rows))
            roots, their_gradients = [], []
            for name, value in found.items():
                parts = [gradients[column].get(name) for column, _ in rows]
                if not value.requires_grad or all(part is None for part in parts):
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
) -> CachedPass:
    """Runs the model without a graph, in parts of at most `tokens` tokens, and remembers how.

    Args:
        model: a SentenceTransformer.
        features: see `outputs_by_length`.
        tokens: the most tokens a part, padding included.
        names: what to keep of the model's outputs.
        work: counts each text once, though it is computed twice; ``None`` for no counting.
    """
    passes = passes_of(features, tokens=tokens)
    random, pieces = [], []
    for rows in passes:
        part = batch_of(features, rows, work)
        random.append(RandContext(*part.values()))
        with torch.no_grad():
            out = model(part)
        pieces.append({name: out[name] for name in names})
    outputs = by_column(features, passes, pieces)
    return CachedPass(outputs, model, features, passes, random, _autocast_of(features[0]["input_ids"].device.type))


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
        """The values, tied so that back-propagating their sum, scaled in whatever way, runs the model again."""
        trigger = torch.zeros((), device=self._leaves[0].device, requires_grad=True)
        trigger.register_hook(self._backward)
        first = next(iter(values))
        return {**values, first: values[first] + trigger}

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
