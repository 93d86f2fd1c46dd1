"""The trainer of a sparse encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.losses.stack import LossStack
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from spectra_nsa.training.loop.pairs_trainer import PairsTrainer
from spectra_nsa.training.loop.plan import TrainerPlan


class SparseTrainer(PairsTrainer):
    """Trains a sparse encoder by a loss stack on rows of texts.

    Static query weights have a learning rate of their own and no weight decay, and never fall below zero.

    Args:
        model: the model in training.
        plan: the run.
        loss: the terms.
        static_lr: the learning rate of static query weights.
        kwargs: see `PairsTrainer`.
    """

    model_class = SpectraSparseEncoder

    def __init__(
        self, model: SpectraSparseEncoder, plan: TrainerPlan, *, loss: LossStack, static_lr: float, **kwargs: Any
    ) -> None:
        static = model.static("query")
        self.static_lr, self.static = static_lr, None if static is None else static.weight
        super().__init__(model, plan, loss=loss, learner=_Learner(model), **kwargs)
        if self.static is not None:
            self.add_callback(_NotNegative(self.static))

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        if self.static is None or any(group.get("static") for group in optimizer.param_groups):
            return optimizer
        for group in optimizer.param_groups:
            group["params"] = [weight for weight in group["params"] if weight is not self.static]
        first = optimizer.param_groups[0]
        group = {key: value for key, value in first.items() if key not in ("params", "initial_lr")}
        group |= {"params": [self.static], "lr": self.static_lr, "weight_decay": 0.0, "static": True}
        optimizer.add_param_group(group)
        return optimizer


class _Learner:
    """A sparse encoder as the trainer sees it."""

    def __init__(self, model: SpectraSparseEncoder) -> None:
        self.model = model

    def weight_groups(self) -> Mapping[str, list[nn.Parameter]]:
        spectra = getattr(self.model.masked_lm(), "spectra", None)
        return {} if spectra is None else spectra.weight_groups()


class _NotNegative(TrainerCallback):
    """Brings weights below zero back to zero after each step."""

    def __init__(self, weight: nn.Parameter) -> None:
        self.weight = weight

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.weight.clamp_(min=0)
