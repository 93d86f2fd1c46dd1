"""A guard against NaN and infinity: found in one process, they stop the step in all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from spectra_nsa.core import processes


class NotFiniteError(Exception):
    """A term or an output is not finite; the step is to be skipped."""


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """Raises in every process if the block finds a value that is not finite in one of them.

    Raises:
        NotFiniteError: in this process or in another.
    """
    problem: NotFiniteError | None = None
    try:
        yield
    except NotFiniteError as error:
        problem = error
    if processes.any_process(problem is not None):
        raise problem or NotFiniteError("a term or an output is not finite in another process")
