"""Other choices than the routers': experts taken away, silenced, exchanged or drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectra_nsa.encoder.experts.router import Choice, Router
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.workflows.moe.collect import expert_layers

# Maps the layer's place among those with experts, its router, a choice and the token ids (None for texts) to a choice.
Edit = Callable[[int, Router, Choice, Tensor | None], Choice]
_LOUD = 20.0  # a logit beside which others do not count


@contextmanager
def rerouted(model: SpectraSentenceTransformer, edit: Edit) -> Iterator[None]:
    """Replaces the choices of all routers while it is open."""
    with ExitStack() as stack:
        for at, layer in enumerate(expert_layers(model)):

            def hook(router: Any, inputs: tuple[Any, ...], choice: Choice, at: int = at) -> Choice:
                return edit(at, router, choice, inputs[1] if len(inputs) > 1 else None)

            stack.callback(layer.router.register_forward_hook(hook).remove)
        yield


def without(layer: int, experts: Sequence[int]) -> Edit:
    """Returns the edit that takes experts of a layer from the candidates, so that the next best one is chosen."""

    def edit(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
        if at != layer:
            return choice
        logits_ME = choice.logits_ME.clone()
        logits_ME[:, list(experts)] = -torch.inf
        return router.choose(logits_ME)

    return edit


def silenced(layer: int, expert: int) -> Edit:
    """Returns the edit that keeps the choices but lets one expert of a layer contribute nothing."""

    def edit(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
        if at != layer:
            return choice
        probs_ME = choice.probs_ME.clone()
        probs_ME[:, expert] = 0.0  # of the router 'smear', which mixes weights by them
        return choice._replace(
            probs_ME=probs_ME, weight_MK=choice.weight_MK.masked_fill(choice.chosen_MK == expert, 0.0)
        )

    return edit


def only(kept: Sequence[Sequence[int]]) -> Edit:
    """Returns the edit that leaves each layer only some experts."""

    def edit(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
        barred = [expert for expert in range(router.spec.count) if expert not in kept[at]]
        logits_ME = choice.logits_ME.clone()
        logits_ME[:, barred] = -torch.inf
        return router.choose(logits_ME)

    return edit


def permuted(seed: int) -> Edit:
    """Returns the edit that gives each expert's tokens to another, within its group."""

    def edit(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
        size = router.spec.count // router.spec.groups
        shift = 1 + np.random.default_rng((seed, at)).integers(size - 1)
        parts = choice.logits_ME.view(len(choice.logits_ME), router.spec.groups, size)
        return router.choose(parts.roll(int(shift), -1).flatten(1))

    return edit


def at_random(seed: int) -> Edit:
    """Returns the edit that draws all choices."""

    def edit(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
        generator = torch.Generator().manual_seed(seed * 1000 + at)
        logits_ME = torch.randn(choice.logits_ME.shape, generator=generator) * _LOUD
        return router.choose(logits_ME.to(choice.logits_ME.device))

    return edit


def by_token(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
    """Is the edit that chooses by token id alone."""
    assert ids is not None
    groups, size = router.spec.groups, router.spec.count // router.spec.groups
    mixed_MG = (ids[:, None] + 1) * 2_654_435_761 // 2 ** (9 + at + 5 * torch.arange(groups, device=ids.device)) % size
    return router.choose(_LOUD * torch.nn.functional.one_hot(mixed_MG, size).flatten(1).float())
