"""The law that every reader and loader obeys, and the number of cases that test it."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, settings

from spectra_nsa.core.errors import SpectraError

SECONDS = 10  # of one case
MEMORY = 2 << 30  # bytes that one case may take
CASES = os.environ.get("SPECTRA_FUZZ", "")
COUNTED = Path(os.environ["SPECTRA_FUZZ_COUNTS"]) if "SPECTRA_FUZZ_COUNTS" in os.environ else None


class Hang(BaseException):
    """A case that takes too long. No reader may take it for an error of the system."""


def cases(usual: int, *, share: float = 1.0) -> settings:
    """Returns the settings of a test.

    Args:
        usual: the number of cases in the default suite.
        share: the part of $SPECTRA_FUZZ that this test takes, by its cost.
    """
    long = bool(CASES)
    return settings(
        max_examples=max(1, round(int(CASES) * share)) if long else usual,
        deadline=None,
        derandomize=not long,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def obeys(work: Callable[[], Any]) -> Any:
    """Returns the result of some work; ``None`` if it raises a `SpectraError`.

    Raises:
        Hang, MemoryError: the work takes more than `SECONDS` or `MEMORY`.
    """
    with _bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return work()
        except SpectraError as error:
            assert str(error)
            return None


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"still at work after {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
