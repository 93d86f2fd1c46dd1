"""What Ctrl-C does to a run."""

from __future__ import annotations

import signal
import sys
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectra_nsa.core import processes


class StopOnInterrupt(TrainerCallback):
    """Finishes the step after Ctrl-C, saves a checkpoint and stops; a second Ctrl-C stops at once.

    If one of several processes is interrupted, all of them stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        try:
            self._previous = signal.signal(signal.SIGINT, self._request)
        except ValueError:  # not the main thread: leave signals alone
            self._previous = None

    def _request(self, *_: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if processes.is_first():
            print("\nstopping after this step and saving a checkpoint (Ctrl-C again to stop at once)", file=sys.stderr)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if processes.any_process(self.requested):
            control.should_save = True
            control.should_training_stop = True
        return control

    def release(self) -> None:
        """Gives SIGINT back to its previous handler."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
