"""What happens beside the steps: the log file, a clean stop, and what keeps a step from doing harm."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.core import processes
from spectra_nsa.core.files import atomic_write
from spectra_nsa.core.memory import resident_gb, trim_heap
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.training.runs.backup import Backup

NOISE = {
    "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss",
    "eval_samples_per_second", "eval_steps_per_second",
}  # fmt: skip


class MetricsLog(TrainerCallback):
    """Appends every log to `metrics.jsonl`, one JSON object a line with its step.

    On resuming, lines of steps after the checkpoint are dropped first: those steps are run again. A run that begins
    anew drops all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= state.global_step > 0:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                continue  # the last line of a killed run may be half written; its step is run again
        with atomic_write(self.path) as file:
            file.write("".join(line + "\n" for line in kept))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:  # the last steps are told of, however few they are
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        values = {key: value for key, value in (logs or {}).items() if key not in NOISE}
        if not state.is_world_process_zero or set(values) <= {"epoch"}:
            return
        self.write(state.global_step, values)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """One more line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a later checkpoint must not outlive the lines before it


class Restore(TrainerCallback):
    """Calls back where training begins, once transformers has set its own sums to zero."""

    def __init__(self, restore: Callable[[], None]) -> None:
        self.restore = restore

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()


class BackUp(TrainerCallback):
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


class StackClock(TrainerCallback):
    """Tells the loss stack what step it is, and logs temperature and each term's gradient norm."""

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
            logs["temperature"] = self.stack.temperature
            for name, norm in (self.stack.gradient_norms or {}).items():
                logs[f"grad_norm_{name}"] = norm


class FiniteGradients(TrainerCallback):
    """Keeps a gradient that is not finite from the weights: a finite loss may have one.

    Args:
        skip: called with the reason; the step then changes nothing.
        passed: called where all is well.
    """

    def __init__(self, skip: Callable[[str], None], passed: Callable[[], None]) -> None:
        self.skip, self.passed = skip, passed

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        named = [(name, weight.grad) for name, weight in kwargs["model"].named_parameters() if weight.grad is not None]
        if not named:
            return  # skipped already
        norms = torch.stack(torch._foreach_norm([processes.own_part(gradient) for _, gradient in named]))
        if not processes.anyone(not torch.isfinite(norms).all()):
            self.passed()
            return
        bad = [name for (name, _), norm in zip(named, norms, strict=True) if not torch.isfinite(norm)]
        bad = bad or ["one in another process"]
        kwargs["model"].zero_grad(set_to_none=True)
        self.skip(f"the gradient of {len(bad)} weights is not finite, such as {bad[0]}")


class TrimMemory(TrainerCallback):
    """Gives the allocator's holes back when they have piled up: on the CPU, ever new shapes leave them.

    What a step needs is learned from the steps that follow a trim, their mean; a tenth more than that is holes.
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


class Deadline(TrainerCallback):
    """Stops at a moment of `time.monotonic()`, as if the last step had come: measured, saved."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if processes.anyone(time.monotonic() > self.moment):
            control.should_training_stop = control.should_save = control.should_log = True
            control.should_evaluate = args.eval_strategy != "no"
        return control


class StopOnInterrupt(TrainerCallback):
    """Ctrl-C finishes the step, saves a checkpoint and stops; a second Ctrl-C stops at once.

    Of several processes all stop where one is asked to.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        try:
            self._previous = signal.signal(signal.SIGINT, self._ask)
        except ValueError:  # not the main thread: leave signals alone
            self._previous = None

    def _ask(self, *_: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if processes.is_first():
            print("\nstopping after this step and saving a checkpoint (Ctrl-C again to stop at once)", file=sys.stderr)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if processes.anyone(self.asked):
            control.should_save = True
            control.should_training_stop = True
        return control

    def release(self) -> None:
        """Gives Ctrl-C back to whoever had it."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None


class Patience(EarlyStoppingCallback):
    """transformers' early stopping, which also saves where it stops and goes on counting in a resumed run.

    Args:
        patience: how many dev evaluations in a row may bring no new best.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(early_stopping_patience=patience)

    @property
    def lost(self) -> bool:
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
        control.should_save = control.should_save or self.lost
