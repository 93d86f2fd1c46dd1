"""Callbacks around the steps: the clock of the losses, backups, and guards against steps that do harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.core import processes
from spectra_nsa.core.memory import resident_gb, trim_heap
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.training.runs.backup import Backup


class RestoreSums(TrainerCallback):
    """Calls back as training begins, after transformers has set its sums to zero."""

    def __init__(self, restore: Callable[[], None]) -> None:
        self.restore = restore

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()


class BackUpCheckpoints(TrainerCallback):
    """Hands each checkpoint to the backup, and logs how many of its attempts have failed."""

    def __init__(self, backup: Backup) -> None:
        self.backup = backup

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        best = state.best_model_checkpoint
        checkpoint = Path(args.output_dir or "") / f"step-{state.global_step}"
        self.backup.saved(checkpoint, Path(best) if best else None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is not None and "loss" in logs and self.backup.tally.failures:
            logs["backup_failures"] = self.backup.tally.failures


class LossClock(TrainerCallback):
    """Tells the loss stack the current step, and logs its temperature and figures and each term's gradient norm."""

    def __init__(self, stack: LossStack) -> None:
        self.stack = stack

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.stack.step, self.stack.steps = state.global_step, state.max_steps
        step = state.global_step + 1
        logged = step == 1 or step % state.logging_steps == 0 or step >= state.max_steps
        self.stack.gradient_norms = {} if logged else None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is not None and "loss" in logs:
            if self.stack.sparse is None:  # sparse vectors are compared at `sparse.scale` instead
                logs["temperature"] = self.stack.temperature
            logs.update(self.stack.figures)
            if self.stack.experts is not None:
                logs.update(self.stack.experts.take_figures())
            for name, norm in (self.stack.gradient_norms or {}).items():
                logs[f"grad_norm_{name}"] = norm


class FiniteGradients(TrainerCallback):
    """Keeps NaN and infinite gradients from the weights: a finite loss may have one.

    Args:
        skip: called with the reason; the step then changes nothing.
        passed: called after a step whose gradients are finite.
    """

    def __init__(self, skip: Callable[[str], None], passed: Callable[[], None]) -> None:
        self.skip, self.passed = skip, passed

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        named = [(name, weight.grad) for name, weight in kwargs["model"].named_parameters() if weight.grad is not None]
        if not named:
            return  # skipped already
        norms = torch.stack(torch._foreach_norm([processes.local_shard(gradient) for _, gradient in named]))
        if not processes.any_process(not torch.isfinite(norms).all()):
            self.passed()
            return
        bad = [name for (name, _), norm in zip(named, norms, strict=True) if not torch.isfinite(norm)]
        bad = bad or ["one in another process"]
        kwargs["model"].zero_grad(set_to_none=True)
        self.skip(f"the gradient of {len(bad)} weights is not finite, such as {bad[0]}")


class TrimMemory(TrainerCallback):
    """Returns unused heap memory to the system: on the CPU, batches of ever new shapes leave holes in it.

    What a step needs is the mean over the steps that follow a trim; a tenth above that counts as holes.
    """

    def __init__(self) -> None:
        self.needed, self.trims = 0.0, 0
        self.trimmed = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        resident = resident_gb() or 0.0
        if self.trimmed:
            self.trims += 1
            self.needed += (resident - self.needed) / self.trims
        self.trimmed = resident > 1.1 * self.needed
        if self.trimmed:
            trim_heap()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trim_heap()  # heads are fitted next


class StopAtDeadline(TrainerCallback):
    """Stops at a `time.monotonic()` as if that step were the last: evaluated, saved and logged."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if processes.any_process(time.monotonic() > self.moment):
            control.should_training_stop = control.should_save = control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"
        return control
