"""Returning memory to the system, and measuring how much is in use."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path


def release_memory() -> None:
    """Frees unreachable objects and returns the allocator's free pages to the system, if it is glibc's.

    Batches of many shapes leave glibc's heap full of holes. Returning them between the stages of a long command keeps
    the peak at what the largest stage needs.
    """
    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Returns the allocator's free pages to the system, if it is glibc's. Takes about 0.1 s."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another libc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def resident_gb() -> float | None:
    """Returns the resident size of this process, in GB (10⁹ bytes); ``None`` if the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def peak_memory_gb() -> float:
    """Returns the largest resident size of this process so far, in GB (10⁹ bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
