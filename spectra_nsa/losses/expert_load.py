"""How the experts of each layer are loaded in training: for the balance loss, the balancing bias and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spectra_nsa.encoder.spec import EncoderSpec

WINDOW = 50  # batches over which the load of texts is averaged: a batch has few, perhaps of one domain
OUTPUTS = ("router_load", "router_entropy")


class ExpertLoad:
    """The load of experts: of the current step, and smoothed.

    The balance loss multiplies the gate by the load of the whole step. The batches of a step (accumulation) come one
    after another, so each sees the load of those so far. Where each text has one choice, it is the mean of 50 batches.

    Args:
        spec: the encoder's shape.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.layers, self.by_text = tuple(spec.expert_layers), spec.experts.by_text
        self.step_load: Tensor | None = None  # (L, E) of the current step
        self.step = -1  # to which `step_load` belongs
        self._mean: Tensor | None = None  # (L, E), shares
        self._batches = 0
        self._logged: dict[str, Tensor] = {}  # sums since the last log line

    def observe(self, columns: Sequence[Mapping[str, Tensor]], step: int) -> None:
        """Takes a batch of all processes into account.

        Args:
            columns: the outputs of each column of texts, with `OUTPUTS`.
            step: from 0.
        """
        load_LE = sum((column["router_load"].detach().double().sum(0) for column in columns), torch.zeros(()))
        entropy_L = sum((column["router_entropy"].detach().double().sum(0) for column in columns), torch.zeros(()))
        assert isinstance(load_LE, Tensor) and isinstance(entropy_L, Tensor)
        self.step_load = load_LE if step != self.step or self.step_load is None else self.step_load + load_LE
        self.step = step
        share_LE = load_LE / load_LE.sum(-1, keepdim=True).clamp_min(1)
        self._batches += 1
        weight = 1 / min(self._batches, WINDOW)
        self._mean = share_LE if self._mean is None else self._mean.to(share_LE.device).lerp(share_LE, weight)
        for name, value in (("load", load_LE), ("entropy", entropy_L)):
            self._logged[name] = self._logged[name].to(value.device) + value if name in self._logged else value

    def for_balance(self) -> Tensor | None:
        """Returns the load (L, E) fp32 that the balance loss reads, at any scale; ``None`` before the first batch."""
        load_LE = self._mean if self.by_text else self.step_load
        return None if load_LE is None else load_LE.float()

    def take_figures(self) -> dict[str, float]:
        """Returns figures of the steps since the last call, by layer, for the log.

        `expert_load_LAYER_EXPERT` is the share of the choices, `expert_max_violation_LAYER` = max load / mean load − 1,
        `gate_entropy_LAYER` is 1 if the gate is uniform.
        """
        if not self._logged:
            return {}
        load_LE, entropy_L = self._logged["load"], self._logged["entropy"]
        self._logged = {}
        total_L1 = load_LE.sum(-1, keepdim=True).clamp_min(1)
        share_LE, experts = load_LE / total_L1, load_LE.shape[-1]
        figures = {}
        for at, layer in enumerate(self.layers):
            figures[f"expert_max_violation_{layer}"] = round(float(share_LE[at].max()) * experts - 1, 4)
            figures[f"gate_entropy_{layer}"] = round(float(entropy_L[at] / total_L1[at, 0]), 4)
            for expert in range(experts):
                figures[f"expert_load_{layer}_{expert}"] = round(float(share_LE[at, expert]), 4)
        return figures

    def state(self) -> dict[str, Any]:
        """Returns tensors and numbers from which `restore` continues bit for bit."""
        mean = None if self._mean is None else self._mean.cpu()
        return {"mean": mean, "batches": self._batches, "logged": {n: v.cpu() for n, v in self._logged.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from a state; an empty one begins anew."""
        self._mean, self._batches = state.get("mean"), state.get("batches", 0)
        self._logged = dict(state.get("logged", {}))


def balances(spec: EncoderSpec | None, term: str) -> bool:
    """Returns whether a term of the routers applies to an encoder: its gate is trained and chooses.

    Args:
        spec: its shape; ``None`` for a sparse encoder.
        term: ``"router_balance"``, which a balancing bias replaces, or another.
    """
    if spec is None or spec.ffn != "moe" or not spec.experts.balanced:
        return False
    return term != "router_balance" or not spec.experts.balance_bias
