"""Warns when a run's figures go wrong, and writes when it began and how it ended."""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.core import processes
from spectra_nsa.training.monitor.alarms import Alarm, alarms

HISTORY = 400  # logged training rows that the alarms look back on
WARMUP_SHARE = 0.2  # of a run's steps: the longest warm-up of a short run


class Watch(TrainerCallback):
    """Logs warnings, and the lines that say when a run began and how it ended.

    A warning is given when its condition begins to hold. It is repeated only after the condition has ceased.

    Args:
        warmup: steps before the first warning; at most a fifth of the run.
        terms: the loss terms that take part in training.
        write: appends a line to `metrics.jsonl`: step and values.
        earlier_rows: returns the rows that are in it already.
        facts: what the first line says of the run.
    """

    def __init__(
        self,
        *,
        warmup: int,
        terms: Sequence[str],
        write: Callable[[int, dict[str, Any]], None],
        earlier_rows: Callable[[], Sequence[Mapping[str, Any]]],
        facts: Mapping[str, Any],
    ) -> None:
        self.warmup, self.terms = warmup, terms
        self.write, self.earlier_rows, self.facts = write, earlier_rows, facts
        self.rows: deque[Mapping[str, Any]] = deque(maxlen=HISTORY)
        self.health: list[Mapping[str, Any]] = []
        self.active: set[str] = set()  # kinds of alarms that hold now
        self.begun = False

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Not in on_train_begin: only now is every other callback ready, the one that answers Ctrl-C among them.
        if self.begun:
            return
        self.begun = True
        if not state.is_world_process_zero:
            return
        for row in self.earlier_rows():  # of the run that this one resumes
            self._remember(row)
        self.active = {alarm.kind for alarm in self._alarms(state)}
        facts = {"steps": state.max_steps, "pid": os.getpid(), "host": socket.gethostname(), **self.facts}
        self.write(state.global_step, {"started": facts})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or not state.is_world_process_zero:
            return
        self._remember({"step": state.global_step, **logs})
        current = self._alarms(state)
        for alarm in current:
            if alarm.kind not in self.active:
                self.write(state.global_step, {"warning": asdict(alarm)})
                line = f"spectra: warning at step {state.global_step}: {alarm.message} {alarm.remedy}"
                print(line, file=sys.stderr, flush=True)
        self.active = {alarm.kind for alarm in current}

    def _alarms(self, state: TrainerState) -> list[Alarm]:
        if state.global_step < min(self.warmup, WARMUP_SHARE * state.max_steps):
            return []
        return alarms(list(self.rows), self.health, self.terms)

    def _remember(self, row: Mapping[str, Any]) -> None:
        if "loss" in row:
            self.rows.append(row)
        elif any(key.startswith("health_") for key in row):
            self.health.append(row)

    def write_end(self, step: int, reason: str, kept: int | None = None) -> None:
        """Writes the run's last line, once.

        Args:
            step: the step at which it ended.
            reason: a word or two.
            kept: the step whose weights `model/` holds; ``None`` for no model.
        """
        if self.begun and processes.is_first():
            self.begun = False
            self.write(step, {"ended": {"reason": reason} | ({} if kept is None else {"kept": kept})})
