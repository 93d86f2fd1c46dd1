"""The terms of routers for a job whose loss is no stack of terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spectra_nsa.core import processes
from spectra_nsa.encoder.spec import EncoderSpec
from spectra_nsa.losses.expert_load import OUTPUTS, ExpertLoad, balances
from spectra_nsa.losses.terms.routing import balance, router_z
from spectra_nsa.losses.whole_batch import whole_outputs

_TERMS = {"router_balance": "router_probs", "router_z": "router_square"}


class RouterTerms:
    """The balance of the experts' load and the size of the gate's logits, over all processes.

    Args:
        spec: the shape of an encoder with experts.
        weights: of `router_balance` and `router_z`; those that do not apply to the router count for nothing.

    Attributes:
        experts: the load.
        outputs: names of the model's outputs that are needed.
        step: the current one, from 0; the trainer sets it.
    """

    def __init__(self, spec: EncoderSpec, weights: Mapping[str, float]) -> None:
        self.experts = ExpertLoad(spec)
        self.step = 0
        self.weights = {name: weight for name, weight in weights.items() if weight and balances(spec, name)}
        wanted = {*OUTPUTS, "router_probs", *(_TERMS[name] for name in self.weights)}
        self.outputs: tuple[str, ...] = tuple(sorted(wanted))
        self._logged: dict[str, tuple[float, int]] = {}  # sums since the last log line

    def __call__(self, passes: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """Returns the weighted sum of the terms for a batch of the current `step`.

        Args:
            passes: the `outputs` of the model in each forward pass.
        """
        own = {name: torch.cat([part[name].float() for part in passes]) for name in self.outputs}
        sizes = processes.gather_counts([len(own["router_load"])])
        (routing,) = whole_outputs([own], sizes)
        self.experts.observe([routing], self.step)
        load_LE, probs_LE = self.experts.for_balance(), routing["router_probs"].sum(0)
        assert load_LE is not None
        total = torch.zeros((), device=probs_LE.device)
        for name, weight in self.weights.items():
            if name == "router_balance":
                value = balance(load_LE, probs_LE)
            else:
                value = router_z(routing["router_square"].sum(0), probs_LE.detach().sum(-1))
            total = total + weight * value
            before, count = self._logged.get(name, (0.0, 0))
            self._logged[name] = before + weight * float(value.detach()), count + 1
        return total

    def take_figures(self) -> dict[str, float]:
        """Returns the mean weighted terms and the figures of the load since the last call, for the log."""
        means = {name: total / count for name, (total, count) in self._logged.items()}
        self._logged = {}
        return means | self.experts.take_figures()

    def state(self) -> dict[str, object]:
        """Returns tensors and numbers from which `restore` continues bit for bit."""
        return self.experts.state() | {"terms": self._logged}

    def restore(self, state: Mapping[str, object]) -> None:
        """Continues from a state; an empty one begins anew."""
        self.experts.restore(state)
        terms = state.get("terms") or {}
        assert isinstance(terms, dict)
        self._logged = {name: (float(total), int(count)) for name, (total, count) in terms.items()}
