"""Progress of long work on texts: how many are done, the rate, the remaining time."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from spectra_nsa.core import console


class Progress:
    """A bar on a terminal, elsewhere a line every half minute.

    Args:
        total: all texts.
        label: a few words before the bar.
        done: the texts that were done before.
    """

    def __init__(self, total: int, *, label: str = "encoding", done: int = 0) -> None:
        self.total, self.label, self.done, self.new = total, label, done, 0
        self.start = self.printed = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if self.done:
            print(f"  resuming: {self.done:,} of {self.total:,} texts are there", file=sys.stderr, flush=True)
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn(self.label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            self._bar = Bar(*columns, TimeRemainingColumn(), console=console.console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, completed=self.done, rate="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, texts: int) -> None:
        """Counts texts."""
        self.done, self.new = self.done + texts, self.new + texts
        now = time.monotonic()
        rate = self.new / max(1e-9, now - self.start)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{rate:,.0f}/s")
        elif now - self.printed >= console.LINE_EVERY and self.done < self.total:
            self.printed = now
            left = duration((self.total - self.done) / rate)
            line = f"  {self.label}: {self.done:,} of {self.total:,} texts, {rate:,.0f}/s, {left} left"
            print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Returns a time in words, such as ``"2 h 5 min"``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
