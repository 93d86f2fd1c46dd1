"""The time budget of the whole quickstart."""

from __future__ import annotations

import math
import time

from spectra_nsa.core.errors import SpectraError

RESERVE = 60  # seconds for the last checkpoint, fitting the codes, the report, and a machine that slows down
SHORTEST = 20  # seconds of training below which there is nothing to show
SHORTEST_FROM_SCRATCH = 120  # the same if vocabulary and teacher take their time first
FASTEST = 30  # seconds that reading the data and measuring take on a fast machine at least


class TimeBudget:
    """A clock that starts when it is created.

    Args:
        minutes: the time for the whole command.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self._start

    def total_minutes(self, measuring: float, training: float) -> float:
        """Returns how long the whole command takes if measuring and training take so many seconds."""
        return (self.spent + measuring + training + RESERVE) / 60

    def training_seconds(self, measuring: float | None, *, from_scratch: bool, least: float = 0) -> float:
        """Returns how long training may take.

        Args:
            measuring: the seconds that measuring one model takes; the trained model will take as long. ``None`` before
                that is known: then the result is the most that can be left.
            from_scratch: whether training includes a vocabulary and a teacher.
            least: the fewest seconds of training that show anything on this machine. If fewer are left, the result is
                this number, and the command takes longer than it was asked to. 0 refuses instead.

        Raises:
            SpectraError: too little time is left.
        """
        used = max(self.spent, FASTEST) if measuring is None else self.spent + measuring
        available = self.minutes * 60 - used - RESERVE
        shortest = SHORTEST_FROM_SCRATCH if from_scratch else SHORTEST
        if least:
            return max(available, least)
        if available >= shortest:
            return available
        about = "at least " if measuring is None else ""
        raise SpectraError(
            f"--minutes {self.minutes:g} is too little on this machine: reading the data and measuring take {about}"
            f"{used:.0f} s, and the end of the run {RESERVE} s, which leaves no time to train. "
            f"Try --minutes {math.ceil((used + RESERVE + shortest) / 60)}."
        )
