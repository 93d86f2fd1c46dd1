"""The optimizer of sharded weights: its groups, and its state in the form of a run of one process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from spectra_nsa.core import processes
from spectra_nsa.training.loop.shards import full_tensor, shard_of


class UnshardedState:
    """Converts between the state of an optimizer over sharded weights and that over unsharded ones.

    Kernels over many weights at once take either kind, not both. So the sharded weights move to groups of their own
    behind the original ones. In the saved state they stand in their original groups.

    Args:
        optimizer: its groups are changed in place.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._original: list[list[nn.Parameter]] = [list(group["params"]) for group in optimizer.param_groups]
        self.moved: list[int] = []  # for each added group, the index of the group that its weights come from
        for index, group in enumerate(list(optimizer.param_groups)):
            sharded = [weight for weight in group["params"] if isinstance(weight, DTensor)]
            if sharded and len(sharded) < len(group["params"]):
                group["params"] = [weight for weight in group["params"] if not isinstance(weight, DTensor)]
                optimizer.add_param_group({**group, "params": sharded})
                self.moved.append(index)

    def state(self) -> dict[str, Any]:
        """Returns the unsharded state on the CPU; all processes must call it, and only the first gets the tensors."""
        groups, states, number = [], {}, 0
        for group, weights in zip(self.optimizer.param_groups, self._original, strict=False):
            numbers = list(range(number, number + len(weights)))
            groups.append({key: value for key, value in group.items() if key != "params"} | {"params": numbers})
            for number, weight in zip(numbers, weights, strict=True):
                if weight in self.optimizer.state:
                    states[number] = {key: _gathered(value) for key, value in self.optimizer.state[weight].items()}
            number = numbers[-1] + 1 if numbers else number
        return {"state": states, "param_groups": groups}

    def shard(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns this process's shard of an unsharded state, in the order of this optimizer's groups."""
        groups = state["param_groups"]
        weights = [weight for group in self._original for weight in group]
        numbers = [number for group in groups for number in group["params"]]
        number_of = {id(weight): number for weight, number in zip(weights, numbers, strict=True)}
        added = [groups[index] for index in self.moved]
        wanted = [
            {**saved, "params": [number_of[id(weight)] for weight in group["params"]]}
            for saved, group in zip([*groups, *added], self.optimizer.param_groups, strict=True)
        ]
        states = {
            number: {key: _shard(value, weight) for key, value in state["state"][number].items()}
            for weight, number in zip(weights, numbers, strict=True)
            if number in state["state"]
        }
        return {"state": states, "param_groups": wanted}

    def schedule_state(self, state: dict[str, Any], *, unsharded: bool) -> dict[str, Any]:
        """Converts a scheduler's state, whose lists have one entry per group.

        Args:
            state: the state to convert.
            unsharded: whether to return the state for unsharded weights; else the one for this optimizer.
        """
        count = len(self._original)

        def fitted(value: Any) -> Any:
            if not isinstance(value, list):
                return value
            return value[:count] if unsharded else [*value[:count], *(value[index] for index in self.moved)]

        return {key: fitted(value) for key, value in state.items()}


def _gathered(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    full = full_tensor(value)
    return full.cpu() if processes.is_first() else None


def _shard(value: Any, weight: Tensor) -> Any:
    """Returns this process's shard of a value of the weight's shape; step counts stay as they are."""
    return shard_of(value, weight) if isinstance(value, Tensor) and value.shape == weight.shape else value
