"""Quarantined rows: all are counted, the first few are kept, and on request all are written to a file."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from spectra_nsa.core.files import atomic_write
from spectra_nsa.text.rows import Problem

SHOWN_PROBLEMS = 5
RAW_CHARACTERS = 2_000


def printable(raw: object) -> str:
    """Returns the first 2,000 characters of a quarantined row, as text that can be written as UTF-8."""
    if isinstance(raw, bytes):
        return raw[: 4 * RAW_CHARACTERS].decode("utf-8", "backslashreplace")[:RAW_CHARACTERS]
    if not isinstance(raw, str):
        raw = json.dumps(raw, ensure_ascii=False, default=str)
    return raw[:RAW_CHARACTERS].encode("utf-8", "backslashreplace").decode("utf-8")[:RAW_CHARACTERS]


def file_name(source: str) -> str:
    """Returns the name of a source's quarantine file: its last two path parts, safe for a file system."""
    parts = Path(source).parts[-2:]
    return (re.sub(r"[^\w.-]+", "-", "-".join(parts)).strip("-.") or "source") + ".jsonl"


class Quarantine:
    """A context that collects quarantined rows. The file appears when the block ends, even if it ends in an error.

    Args:
        source: the source being read; it gives the file its name.
        folder: the folder of the file; ``None`` only counts.
        copy: an open file that also receives every quarantined row; ``None`` for no copy.
    """

    def __init__(self, source: str, folder: Path | None, copy: IO[str] | None = None) -> None:
        self.count = 0
        self.first: list[Problem] = []
        self._path = None if folder is None else Path(folder) / file_name(source)
        self._file: IO[Any] | None = None
        self._copy = copy
        self._stack = contextlib.ExitStack()

    @property
    def path(self) -> Path | None:
        """The file with the quarantined rows; ``None`` if there is none."""
        return self._path if self.count else None

    def add(self, problem: Problem) -> None:
        """Counts one quarantined row and writes it."""
        self.count += 1
        if len(self.first) < SHOWN_PROBLEMS:
            self.first.append(problem)
        line = json.dumps(asdict(problem), ensure_ascii=False) + "\n"
        if self._copy is not None:
            self._copy.write(line)
        if self._path is None:
            return
        if self._file is None:
            self._file = self._stack.enter_context(atomic_write(self._path))
        self._file.write(line)

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()  # not told of the error: after a failed load the quarantined rows matter most
        if self._path is not None and not self.count:
            self._path.unlink(missing_ok=True)  # left by an earlier run; the source has none now
