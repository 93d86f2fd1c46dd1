"""The progress of a run on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.report.run_log import MetricsRow

REDRAW = 2.0  # seconds
LINE_EVERY = 30.0  # seconds


class Progress(TrainerCallback):
    """Shows the panel of `spectra monitor` on a terminal, and a line every half minute elsewhere.

    Args:
        name: the run's name.
        rows: returns what `metrics.jsonl` holds by now.
        deadline: a `time.monotonic()` at which training ends; ``None`` for none.
    """

    def __init__(self, name: str, rows: Callable[[], Sequence[MetricsRow]], deadline: float | None = None) -> None:
        self.name, self.rows, self.deadline = name, rows, deadline
        self.live: Any = None
        self.facts = ""
        self.printed = self.drawn = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        self.printed = time.monotonic()
        if sys.stderr.isatty():
            from rich.live import Live

            from spectra_nsa.core.console import console

            self.live = Live(console=console(stderr=True), transient=True, auto_refresh=False)
            self.live.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        now = time.monotonic()
        if self.live is not None:
            if now - self.drawn > REDRAW:
                self.drawn = now
                self.draw(state.global_step)
        elif state.is_world_process_zero and now - self.printed > LINE_EVERY:
            self.printed = now
            end = f"/{state.max_steps}"
            if self.deadline is not None:  # the clock ends it, not a number of steps
                end = f", {max(0.0, self.deadline - self.printed):.0f} s left"
            print(f"  step {state.global_step}{end}{self.facts}", file=sys.stderr, flush=True)

    def draw(self, step: int) -> None:
        """Redraws the panel."""
        from spectra_nsa.report.run_view import run_view

        self.live.update(run_view(self.rows(), name=self.name, now=time.time(), step=step), refresh=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            self.facts = f"  loss {float(logs['loss']):.3f}  lr {float(logs['learning_rate']):.1e}"
        for key, value in logs.items():
            if key.startswith("eval_dev_"):
                self.facts += f"  {key.removeprefix('eval_')} {value:.4f}"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Removes the panel from the screen."""
        if self.live is not None:
            self.live.stop()
            self.live = None
