"""The shared console and its progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


@cache
def console(stderr: bool = False) -> Console:
    """Returns the shared console on standard output, or on standard error for progress and warnings."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def progress(items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
    """Yields `items` and shows a progress bar on standard error, if that is a terminal.

    Args:
        items: what to iterate over.
        label: a few words before the bar.
        total: how many there are; ``None`` for `len(items)`, if it has one.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import track

    yield from track(items, description=label, total=total, console=console(stderr=True), transient=True)
