"""Progress of a long encoding: rows, rate, remaining time."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from spectra_nsa.core.console import LINE_EVERY, console


class Progress:
    """A bar on a terminal, elsewhere a line every half minute.

    Args:
        total: all rows.
        done: those that were there before.
    """

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done, self.new = total, done, 0
        self.start = self.printed = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self.done:
            print(f"  resuming: {self.done:,} of {self.total:,} texts are there", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            self._bar = Bar(*columns, TimeRemainingColumn(), console=console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, completed=self.done, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, rows: int) -> None:
        """Counts rows."""
        self.done, self.new = self.done + rows, self.new + rows
        now = time.monotonic()
        rate = self.new / max(1e-9, now - self.start)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{rate:,.0f}/s")
        elif now - self.printed >= LINE_EVERY and self.done < self.total:
            self.printed = now
            left = duration((self.total - self.done) / rate)
            print(f"  {self.done:,} of {self.total:,} texts, {rate:,.0f}/s, {left} left", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Returns a time in words, such as ``"2 h 5 min"``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
