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
    """Returns the edit that gives each expert's tokens to another, within its group, with the same gate."""

    def edit(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
        groups, size = router.spec.groups, router.spec.count // router.spec.groups
        shift = int(1 + np.random.default_rng((seed, at)).integers(size - 1))
        chosen_MK = choice.chosen_MK // size * size + (choice.chosen_MK % size + shift) % size
        probs_MGS = choice.probs_ME.view(-1, groups, size).roll(shift, -1)
        return choice._replace(chosen_MK=chosen_MK, probs_ME=probs_MGS.flatten(1))

    return edit


def at_random(seed: int) -> Edit:
    """Returns the edit that draws all choices, with the factors that the gate gave."""

    def edit(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
        generator = torch.Generator().manual_seed(seed * 1000 + at)
        scores_ME = torch.rand(choice.logits_ME.shape, generator=generator).to(choice.logits_ME.device)
        order_ME = scores_ME.view(-1, router.spec.groups, router.spec.count // router.spec.groups).argsort(-1)
        probs_ME = choice.probs_ME.view_as(order_ME).gather(-1, order_ME).flatten(1)
        return choice._replace(chosen_MK=router.best(scores_ME), probs_ME=probs_ME)

    return edit


def by_token(at: int, router: Router, choice: Choice, ids: Tensor | None) -> Choice:
    """Is the edit that chooses by token id alone, with the factors that the gate gave."""
    assert ids is not None
    return choice._replace(chosen_MK=router.best(router.hashed(ids, salt=1_000)))
