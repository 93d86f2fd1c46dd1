"""Learning rates of kinds of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def split_group(optimizer: Any, kind: str, weights: Sequence[nn.Parameter], factor: float, *, decay: bool) -> None:
    """Moves weights to groups of their own.

    Args:
        optimizer: changed in place.
        kind: the mark of the new groups.
        weights: none leave the optimizer as it is.
        factor: their learning rate, as a multiple of that of the group they are in.
        decay: whether they keep the weight decay of that group. If they do and the factor is 1, nothing is moved.
    """
    chosen = {id(weight) for weight in weights}
    if not chosen or (decay and factor == 1):
        return
    moved: dict[float, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        mine = [weight for weight in group["params"] if id(weight) in chosen]
        if mine:
            moved.setdefault(group["weight_decay"] if decay else 0.0, []).extend(mine)
            group["params"] = [weight for weight in group["params"] if id(weight) not in chosen]
    first = optimizer.param_groups[0]
    base = {key: value for key, value in first.items() if key not in ("params", "initial_lr")}
    for weight_decay, mine in moved.items():
        more = {"params": mine, "lr": first["lr"] * factor, "weight_decay": weight_decay, kind: True}
        optimizer.add_param_group(base | more)
