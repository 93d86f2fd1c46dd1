"""The optimiser of weights that are shared out: its groups, and its state as a run of one process would have it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from spectra_nsa.core import processes
from spectra_nsa.training.loop.shards import part_of, whole_tensor


class WholeState:
    """Between an optimiser over weights of which some are shared out, and its state over whole ones.

    Kernels that take many weights at once take either kind, not both. So the weights that are shared out move to
    groups of their own, which stand behind all others; in the state that is saved they are in their first places.

    Args:
        optimizer: its groups are changed in place.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._first: list[list[nn.Parameter]] = [list(group["params"]) for group in optimizer.param_groups]
        self.moved: list[int] = []  # the group that each group behind the first ones comes from
        for place, group in enumerate(list(optimizer.param_groups)):
            shared = [weight for weight in group["params"] if isinstance(weight, DTensor)]
            if shared and len(shared) < len(group["params"]):
                group["params"] = [weight for weight in group["params"] if not isinstance(weight, DTensor)]
                optimizer.add_param_group({**group, "params": shared})
                self.moved.append(place)

    def state(self) -> dict[str, Any]:
        """The whole state, on the CPU, in the first process; all take part, and the others get no tensors."""
        groups, states, number = [], {}, 0
        for group, weights in zip(self.optimizer.param_groups, self._first, strict=False):
            numbers = list(range(number, number + len(weights)))
            groups.append({key: value for key, value in group.items() if key != "params"} | {"params": numbers})
            for number, weight in zip(numbers, weights, strict=True):
                if weight in self.optimizer.state:
                    states[number] = {key: _kept(value) for key, value in self.optimizer.state[weight].items()}
            number = numbers[-1] + 1 if numbers else number
        return {"state": states, "param_groups": groups}

    def shared_out(self, state: dict[str, Any]) -> dict[str, Any]:
        """Such a state in the order of this optimiser's groups, with this process's part of it."""
        groups = state["param_groups"]
        weights = [weight for group in self._first for weight in group]
        numbers = [number for group in groups for number in group["params"]]
        number_of = {id(weight): number for weight, number in zip(weights, numbers, strict=True)}
        behind = [groups[place] for place in self.moved]
        wanted = [
            {**saved, "params": [number_of[id(weight)] for weight in group["params"]]}
            for saved, group in zip([*groups, *behind], self.optimizer.param_groups, strict=True)
        ]
        states = {
            number: {key: _part(value, weight) for key, value in state["state"][number].items()}
            for weight, number in zip(weights, numbers, strict=True)
            if number in state["state"]
        }
        return {"state": states, "param_groups": wanted}

    def schedule_state(self, state: dict[str, Any], *, whole: bool) -> dict[str, Any]:
        """A scheduler's state, which has a list entry a group, for whole weights or for these.

        Args:
            state: of the other kind.
            whole: whether it is to be that for whole weights.
        """
        first = len(self._first)

        def fitted(value: Any) -> Any:
            if not isinstance(value, list):
                return value
            return value[:first] if whole else [*value[:first], *(value[place] for place in self.moved)]

        return {key: fitted(value) for key, value in state.items()}


def _kept(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    whole = whole_tensor(value)
    return whole.cpu() if processes.is_first() else None


def _part(value: Any, weight: Tensor) -> Any:
    """Of what is as large as the weight, its part; step counts are the same for all."""
    return part_of(value, weight) if isinstance(value, Tensor) and value.shape == weight.shape else value
