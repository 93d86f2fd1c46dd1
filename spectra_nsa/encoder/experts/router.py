"""Routers: which experts each token or text uses, and by how much."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext
from spectra_nsa.encoder.experts.spec import HASH_ROUTERS, ExpertSpec
from spectra_nsa.encoder.gates import SinglePrecision
from spectra_nsa.encoder.signals import Routing

_PRIME, _GENERATOR = 2**31 - 1, 48_271  # of multiplicative hashes (Park and Miller 1988)
_DEVIATION = 0.02  # of a gate's first weights


class Choice(NamedTuple):
    """What a router has decided for M tokens or texts.

    Attributes:
        logits_ME: fp32.
        probs_ME: the gate, which sums to 1 over the experts of each group.
        chosen_MK: the experts.
        weight_MK: the factor of each, with the gradient of the gate.
    """

    logits_ME: Tensor
    probs_ME: Tensor
    chosen_MK: Tensor
    weight_MK: Tensor


class Router(SinglePrecision):
    """A linear gate, computed in fp32 whatever the number format of the model and of autocast.

    Its output depends on one token or text only, never on the rest of the batch, except for noise and capacity, which
    are for training.

    Args:
        spec: the experts.
        hidden_size: D.
        layer: the layer's number, which makes the fixed routers of layers differ.
    """

    def __init__(self, spec: ExpertSpec, hidden_size: int, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        self.shape = spec.count, hidden_size
        if spec.router in HASH_ROUTERS:
            self.register_parameter("weight", None)
        elif spec.learned:
            self.weight = nn.Parameter(torch.empty(self.shape))
        else:
            self.register_buffer("weight", torch.empty(self.shape))
        if spec.balance_bias:
            self.register_buffer("bias", torch.empty(spec.count))
        else:
            self.bias: Tensor | None = None
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        values = {}
        if self.weight is not None:
            # A generator of its own, so that a layer's gate is the same however the model comes to be built.
            generator = torch.Generator().manual_seed(self.layer)
            values["weight"] = torch.randn(self.shape, generator=generator) * _DEVIATION
        if self.bias is not None:
            values["bias"] = torch.zeros(self.shape[0])
        return values

    def forward(self, x_MD: Tensor, ids_M: Tensor | None = None) -> Choice:
        """Decides for M tokens or texts.

        Args:
            x_MD: their states.
            ids_M: their token ids, or keys of the texts, which only the hash routers read.
        """
        logits_ME = self._logits(x_MD, ids_M)
        if self.training and self.spec.noise:
            logits_ME = logits_ME + self.spec.noise * torch.randn_like(logits_ME)
        return self.choose(logits_ME)

    def choose(self, logits_ME: Tensor) -> Choice:
        """Decides by logits; an expert with −∞ is not chosen, as long as its group has others."""
        groups, size = self.spec.groups, self.spec.count // self.spec.groups
        picks = self.spec.top_k // groups
        probs_ME = logits_ME.view(-1, groups, size).softmax(-1).flatten(1)
        selected_ME = probs_ME
        if self.bias is not None:
            selected_ME = (probs_ME.detach() + self.bias).masked_fill(logits_ME == -torch.inf, -torch.inf)
        chosen_MK = self.best(selected_ME)
        gate_MK = probs_ME.gather(1, chosen_MK)
        if picks == 1:
            weight_MK = gate_MK / gate_MK.detach()  # 1, with the gate's gradient
        else:
            weight_MK = gate_MK / gate_MK.sum(1, keepdim=True)
        if self.training and self.spec.capacity is not None:
            weight_MK = weight_MK * self._kept(chosen_MK, gate_MK)
        return Choice(logits_ME, probs_ME / groups, chosen_MK, weight_MK)

    def best(self, scores_ME: Tensor) -> Tensor:
        """Returns the experts with the highest scores, as many in each group as are chosen there: (M, K)."""
        groups, size = self.spec.groups, self.spec.count // self.spec.groups
        picks = self.spec.top_k // groups
        picked_MGP = scores_ME.detach().view(-1, groups, size).topk(picks, dim=-1).indices
        first_G1 = torch.arange(groups, device=scores_ME.device)[:, None] * size
        return (picked_MGP + first_G1).flatten(1)

    def hashed(self, ids_M: Tensor, salt: int = 0) -> Tensor:
        """Returns scores (M, E) that are 1 for the experts that a hash of the id chooses, and 0 for others."""
        groups, size = self.spec.groups, self.spec.count // self.spec.groups
        scores = []
        for group in range(groups):
            factor = pow(_GENERATOR, 100 + salt + 61 * self.layer + 17 * group, _PRIME)
            first_M = (ids_M + 1) % _PRIME * factor % _PRIME * size // _PRIME
            picks = [(first_M + at) % size for at in range(self.spec.top_k // groups)]
            scores.append(torch.stack([F.one_hot(pick_M, size) for pick_M in picks]).sum(0))
        return torch.cat(scores, dim=1).float()

    def _logits(self, x_MD: Tensor, ids_M: Tensor | None) -> Tensor:
        with torch.autocast(x_MD.device.type, enabled=False):
            if self.weight is not None:
                return F.linear(x_MD.float(), self.weight.float())
        assert ids_M is not None
        return 20.0 * self.hashed(ids_M)

    def _kept(self, chosen_MK: Tensor, gate_MK: Tensor) -> Tensor:
        """Returns 0 for the choices that exceed an expert's capacity, those with the lowest gate, and 1 for others."""
        assert self.spec.capacity is not None
        rows = chosen_MK.numel()
        most = max(1, -int(-self.spec.capacity * rows // self.spec.count))
        by_gate_R = gate_MK.detach().flatten().argsort(descending=True, stable=True)
        order_R = by_gate_R[chosen_MK.flatten()[by_gate_R].argsort(stable=True)]  # by expert, the highest gates first
        counts_E = torch.bincount(chosen_MK.flatten(), minlength=self.spec.count)
        first_E = counts_E.cumsum(0) - counts_E
        rank_R = torch.arange(rows, device=chosen_MK.device) - first_E[chosen_MK.flatten()[order_R]]
        kept_R = torch.empty(rows, device=chosen_MK.device)
        kept_R[order_R] = (rank_R < most).float()
        return kept_R.view_as(gate_MK)


def routing_of(choice: Choice, context: BatchContext, rows_M: Tensor | None, spec: ExpertSpec) -> Routing:
    """Returns the signal of a choice, padded to the shape of the batch.

    Args:
        choice: for M tokens or B texts.
        context: the batch.
        rows_M: the flat positions of the tokens; ``None`` if they are all.
        spec: the experts.
    """
    B, T = context.mask_BT.shape

    def padded(value: Tensor, fill: int) -> Tensor:
        if spec.by_text:
            return value[:, None]
        if rows_M is not None:
            value = value.new_full((B * T, value.shape[1]), fill).index_copy(0, rows_M, value)
        value = value.view(B, T, -1)
        # A traced graph computes padding too.
        return value.masked_fill(~context.mask_BT[..., None], fill) if torch.compiler.is_compiling() else value

    return Routing(
        padded(choice.logits_ME, 0), padded(choice.probs_ME, 0), padded(choice.chosen_MK, -1), groups=spec.groups
    )
