"""`metrics.jsonl`: the log of a run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.core.files import atomic_write, finite_json
from spectra_nsa.report.run_log import FINAL

DROPPED = {
    "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss",
    "eval_samples_per_second", "eval_steps_per_second",
}  # fmt: skip


class MetricsLog(TrainerCallback):
    """Appends every log to `metrics.jsonl`, one JSON object a line with its step.

    A resumed run first drops the lines of steps after its checkpoint, which run again, and those of the finished model.
    A run without a checkpoint drops all of them.
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
                row = json.loads(line)
                if row["step"] <= state.global_step > 0 and FINAL not in row:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                continue  # the last line of a killed run may be half written; its step runs again
        with atomic_write(self.path) as file:
            file.write("".join(line + "\n" for line in kept))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:  # log the last steps even if they are fewer than train.log_every
            control.should_log = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        values = {key: value for key, value in (logs or {}).items() if key not in DROPPED}
        if not state.is_world_process_zero or set(values) <= {"epoch"}:
            return
        self.write(state.global_step, values)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Appends one line and brings it onto the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            row = finite_json({"step": step, "time": round(time.time(), 3), **values})
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a later checkpoint must not outlive the lines before it
