"""What the routers of a model have decided, summed for each text.

Sums over the texts of a batch are those of its tokens, however the texts were grouped in passes; that is what losses
and measurements of experts are computed from. Legend: L layers with experts, E experts, S choices (see `Routing`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.encoder.signals import Routing, Signals


def routing_outputs(signals: Sequence[Signals], names: Collection[str]) -> dict[str, Tensor]:
    """Computes named outputs of the routers.

    Args:
        signals: of each layer, lowest first; those without experts are left out.
        names: from `ROUTING_OUTPUTS`.
    """
    routings = [layer.routing for layer in signals if layer.routing is not None]
    return {name: torch.stack([_COMPUTE[name](routing) for routing in routings], dim=1) for name in names}


def _made(routing: Routing) -> Tensor:
    """Returns where a choice was made, not padding: (B, S)."""
    return routing.chosen_BSK[..., 0] >= 0


def _load(routing: Routing) -> Tensor:
    """Counts how often each expert was chosen: (B, E)."""
    experts = routing.probs_BSE.shape[-1]
    one_hot_BSKE = F.one_hot(routing.chosen_BSK.clamp_min(0), experts) * _made(routing)[..., None, None]
    return one_hot_BSKE.sum((1, 2)).float()


def _probs(routing: Routing) -> Tensor:
    return routing.probs_BSE.sum(1)


def _square(routing: Routing) -> Tensor:
    """Sums the squared log-partition of the gate: (B,)."""
    squares_BS = routing.logits_BSE.logsumexp(-1).square()
    return (squares_BS * _made(routing)).sum(1)


def gate_entropy(routing: Routing) -> Tensor:
    """Returns the entropy of each choice's gate, 1 if it is uniform: (B, S)."""
    probs_BSE = routing.probs_BSE
    return -torch.special.xlogy(probs_BSE, probs_BSE).sum(-1) / math.log(probs_BSE.shape[-1])


def gate_margin(routing: Routing) -> Tensor:
    """Returns the distance between the logits of a chosen expert and the best of the others: (B, S)."""
    experts = routing.probs_BSE.shape[-1]
    chosen_BSE = F.one_hot(routing.chosen_BSK.clamp_min(0), experts).sum(2).bool()
    groups = (*routing.logits_BSE.shape[:2], routing.groups, experts // routing.groups)  # they compete within a group
    last_BSG = routing.logits_BSE.masked_fill(~chosen_BSE, torch.inf).view(groups).amin(-1)
    next_BSG = routing.logits_BSE.masked_fill(chosen_BSE, -torch.inf).view(groups).amax(-1)
    return (last_BSG - next_BSG).abs().amin(-1)


def _entropy(routing: Routing) -> Tensor:
    return (gate_entropy(routing) * _made(routing)).sum(1)


def _margin(routing: Routing) -> Tensor:
    return gate_margin(routing).masked_fill(~_made(routing), torch.inf).amin(1)


_COMPUTE = {
    "router_load": _load,
    "router_probs": _probs,
    "router_square": _square,
    "router_entropy": _entropy,
    "router_margin": _margin,
}
