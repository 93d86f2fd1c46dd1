"""What a running training shows on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.report.runlog import Row

REDRAW = 2.0  # seconds between frames


class Progress(TrainerCallback):
    """The frame of `spectra monitor` where standard error is a terminal, elsewhere a line every half minute.

    Args:
        name: the run's.
        rows: gives what `metrics.jsonl` holds by now.
        deadline: a `time.monotonic()` at which training ends; ``None`` for none.
    """

    def __init__(self, name: str, rows: Callable[[], Sequence[Row]], deadline: float | None = None) -> None:
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
        elif state.is_world_process_zero and now - self.printed > 30:
            self.printed = now
            of = f"/{state.max_steps}"
            if self.deadline is not None:  # time ends it, not a number of steps
                of = f", {max(0.0, self.deadline - self.printed):.0f} s left"
            print(f"  step {state.global_step}{of}{self.facts}", file=sys.stderr, flush=True)

    def draw(self, step: int) -> None:
        """Shows the frame as it is now."""
        from spectra_nsa.report.frame import WIDE, run_frame

        wide = self.live.console.width >= WIDE
        self.live.update(run_frame(self.rows(), name=self.name, now=time.time(), step=step, wide=wide), refresh=True)

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
            self.facts = (
                f"  at step {state.global_step}: loss {float(logs['loss']):.3f}  lr {float(logs['learning_rate']):.1e}"
            )
        for key, value in logs.items():
            if key.startswith("eval_dev_"):
                self.facts += f"  {key.removeprefix('eval_')} {value:.4f}"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes the frame off the screen."""
        if self.live is not None:
            self.live.stop()
            self.live = None
