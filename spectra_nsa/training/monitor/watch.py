"""Watches a run: measures its health now and then, and warns when its figures go wrong."""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.core import processes
from spectra_nsa.training.monitor.alarms import Alarm, alarms

KEPT = 400  # rows of training that warnings look back on
WARMUP_SHARE = 0.2  # of a run's steps: the longest warm-up of a short run


class Watch(TrainerCallback):
    """Logs `health_…` figures and warnings, and the lines that say when a run began and how it ended.

    A warning is given when its condition begins to hold; it is given again only after the condition has ceased.

    Args:
        every: steps between measures.
        warmup: steps before anything is warned of; at most a fifth of the run.
        terms: the loss terms that take part.
        log: logs figures, as the trainer does.
        write: writes one more line of `metrics.jsonl`: step and values.
        before: the rows that are in it already.
        facts: what to say of the run in its first line.
        measure: gives the figures; ``None`` for no measures.
        gathered: where one process may use the model without the others; ``None`` for anywhere.
    """

    def __init__(
        self,
        *,
        every: int,
        warmup: int,
        terms: Sequence[str],
        log: Callable[[dict[str, float]], None],
        write: Callable[[int, dict[str, Any]], None],
        before: Callable[[], Sequence[Mapping[str, Any]]],
        facts: Mapping[str, Any],
        measure: Callable[[], dict[str, float]] | None = None,
        gathered: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.every, self.warmup, self.terms = every, warmup, terms
        self.log, self.write, self.before, self.facts, self.measure = log, write, before, facts, measure
        self.gathered = gathered or nullcontext
        self.rows: deque[Mapping[str, Any]] = deque(maxlen=KEPT)
        self.health: list[Mapping[str, Any]] = []
        self.holding: set[str] = set()
        self.begun = False

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Not when training begins: by now every other callback is ready, the one that answers Ctrl-C among them.
        if self.begun:
            return
        self.begun = True
        if state.is_world_process_zero:
            self._begin(state)
        if state.global_step == 0:
            self._measure(state, control)

    def _begin(self, state: TrainerState) -> None:
        for row in self.before():  # of the run that this one goes on from
            self._keep(row)
        self.holding = {alarm.kind for alarm in self._alarms(state)}
        facts = {"steps": state.max_steps, "pid": os.getpid(), "host": socket.gethostname(), **self.facts}
        self.write(state.global_step, {"started": facts})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._measure(state, control)

    def _measure(self, state: TrainerState, control: TrainerControl) -> None:
        if self.measure is None:
            return
        with self.gathered():
            if not state.is_world_process_zero:
                return
            figures = self.measure()
        asked = control.should_log
        self.log(figures)
        control.should_log = asked  # logging takes it for done, and the step's own log is still to come

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
        self._keep({"step": state.global_step, **logs})
        found = self._alarms(state)
        for alarm in found:
            if alarm.kind not in self.holding:
                self.write(state.global_step, {"warning": asdict(alarm)})
                said = f"spectra: warning at step {state.global_step}: {alarm.message} {alarm.remedy}"
                print(said, file=sys.stderr, flush=True)
        self.holding = {alarm.kind for alarm in found}

    def _alarms(self, state: TrainerState) -> list[Alarm]:
        if state.global_step < min(self.warmup, WARMUP_SHARE * state.max_steps):
            return []
        return alarms(list(self.rows), self.health, self.terms)

    def _keep(self, row: Mapping[str, Any]) -> None:
        if "loss" in row:
            self.rows.append(row)
        elif any(key.startswith("health_") for key in row):
            self.health.append(row)

    def ended(self, step: int, reason: str, kept: int | None = None) -> None:
        """Writes the run's last line, once.

        Args:
            step: where it ended.
            reason: a word or two.
            kept: the step whose weights `model/` holds; ``None`` where there is none.
        """
        if self.begun and processes.is_first():
            self.begun = False
            self.write(step, {"ended": {"reason": reason} | ({} if kept is None else {"kept": kept})})
