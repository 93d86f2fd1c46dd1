"""`train.patience`: ends a run whose dev metric no longer improves."""

from __future__ import annotations

from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments


class EarlyStopping(EarlyStoppingCallback):
    """transformers' early stopping, which also saves a checkpoint as it stops and keeps counting in a resumed run.

    Args:
        patience: how many dev evaluations in a row may bring no new best.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(early_stopping_patience=patience)

    @property
    def has_stopped(self) -> bool:
        """Whether it has stopped the run."""
        return self.early_stopping_patience_counter >= self.early_stopping_patience

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        measured = [log["step"] for log in state.log_history if args.metric_for_best_model in log]
        self.early_stopping_patience_counter = sum(step > (state.best_global_step or 0) for step in measured)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        super().on_evaluate(args, state, control, metrics, **kwargs)
        control.should_save = control.should_save or self.has_stopped
