"""The shared console and its progress bar."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spectra_nsa.core.files import finite_json
from spectra_nsa.core.processes import is_first

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
LINE_EVERY = 30.0  # seconds between lines of progress without a terminal


def prepare_streams() -> None:
    """Makes standard output and error accept every text, so that printing never fails a command.

    A character that the encoding lacks is printed as ``?``. A stream that was closed at the start goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (open until the end)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@cache
def console(stderr: bool = False) -> Console:
    """Returns the shared console on standard output, or on standard error for progress and warnings."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


_said: set[str] = set()


def say_loading(name: str) -> None:
    """Prints to standard error which model is being loaded, because that takes a second or more; once for each."""
    if is_first() and name not in _said:
        _said.add(name)
        print(f"spectra: loading {name}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def no_library_bars() -> Iterator[None]:
    """Hides the progress bars with which transformers reads and writes weights, which take a moment only."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown and not HF_HUB_DISABLE_PROGRESS_BARS:  # the Hub warns if its environment variable is contradicted
            logging.enable_progress_bar()


@contextlib.contextmanager
def no_retry_log() -> Iterator[None]:
    """Keeps the Hub's client from logging each failed attempt to connect: the error that ends them says it once."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def print_json(document: Any, *, indent: int | None = None) -> None:
    """Prints a document as JSON on standard output: NaN and infinity as null, and in ASCII unless the output is UTF-8.

    Args:
        document: dictionaries, lists, tuples, texts, numbers, booleans and ``None``.
        indent: see `json.dumps`.
    """
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(finite_json(document), indent=indent, ensure_ascii=not utf8, allow_nan=False))


def progress(items: Iterable[T], *, label: str, total: int | None = None) -> Iterator[T]:
    """Yields `items` and shows a progress bar on standard error; without a terminal, a line every half minute.

    Args:
        items: what to iterate over.
        label: a few words before the bar.
        total: how many there are; ``None`` for `len(items)`, if it has one.
    """
    if not sys.stderr.isatty():
        yield from _with_lines(items, label, total)
        return
    from rich.progress import track

    yield from track(items, description=label, total=total, console=console(stderr=True), transient=True)


def _with_lines(items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    if total is None and isinstance(items, Sized):
        total = len(items)
    of = "" if total is None else f" of {total:,}"
    printed = time.monotonic()
    count, shown = 0, False
    for count, item in enumerate(items):
        if time.monotonic() - printed >= LINE_EVERY:
            printed, shown = time.monotonic(), True
            print(f"  {label}: {count:,}{of}", file=sys.stderr, flush=True)
        yield item
    if shown:
        print(f"  {label}: {count + 1:,}{of}", file=sys.stderr, flush=True)
