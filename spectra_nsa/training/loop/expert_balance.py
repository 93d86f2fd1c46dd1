"""The bias that balances experts without a loss (Wang et al. 2024, auxiliary-loss-free load balancing)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.losses.router_terms import RouterTerms
from spectra_nsa.losses.stack import LossStack

RATE = 1e-3  # of a step, in units of the gate's probability


class BalanceExperts(TrainerCallback):
    """Raises, after each step, the bias of experts that had less than the mean load, and lowers that of the others.

    The bias takes part in the choice only, so no gradient depends on it.

    Args:
        encoder: the encoder in training.
        stack: knows the load of the step, which is that of all processes.
    """

    def __init__(self, encoder: nn.Module, stack: LossStack | RouterTerms) -> None:
        self.routers = [module.router for module in encoder.modules() if isinstance(module, ExpertFFN)]
        self.stack = stack

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        load = self.stack.experts
        if load is None or load.step_load is None or load.step != self.stack.step:  # a skipped step has no load
            return
        for router, load_E in zip(self.routers, load.step_load, strict=True):
            if router.bias is not None and router.weight is not None and router.weight.requires_grad:
                lack_E = (load_E.mean() - load_E).sign()
                router.bias += RATE * lack_E.to(router.bias)
