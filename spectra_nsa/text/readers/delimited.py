"""CSV and TSV by the `csv` module, one record at a time, such that a broken record costs only itself.

A quote that is never closed would swallow the rest of the file. The line it opens on is refused instead, and reading
goes on with the next line. In a TSV file, where a quote is mostly just a quote, such a line is split at its tabs.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.quarantine import printable
from spectra_nsa.text.readers.lines import MAX_LINE, Line, read_lines
from spectra_nsa.text.rows import Problem


class _Source:
    """Lines with a way back: what a failed record has consumed can be read again."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self.taken: list[Line] = []

    def peek(self) -> Line | None:
        if not self._again:
            line = next(self._lines, None)
            if line is None:
                return None
            self._again.append(line)
        return self._again[0]

    def record_lines(self) -> Iterator[str]:
        """The lines of one record for `csv.reader`; ends at a line that is too long and after 1 MB."""
        self.taken, size = [], 0
        while (line := self.peek()) is not None and not line.too_long and size <= MAX_LINE:
            self.taken.append(self._again.popleft())
            size += len(line.data)
            yield line.data.decode("utf-8", "surrogateescape")

    def give_back(self, keep: int = 1) -> None:
        """Returns all taken lines but the first `keep`."""
        self._again.extendleft(reversed(self.taken[keep:]))
        del self.taken[keep:]

    def skip(self) -> None:
        self._again.popleft()


def read_delimited(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]] | Problem]:
    """Yields (first line, row by column name) or the refused row; the first record names the columns.

    Raises:
        SpectraError: the header is broken or names a column twice.
    """
    csv.field_size_limit(max(csv.field_size_limit(), 4 * MAX_LINE))
    source = _Source(read_lines(path))
    header: list[str] | None = None
    while (line := source.peek()) is not None:
        if line.too_long:
            source.skip()
            yield _problem(path, [line], f"the line is longer than {MAX_LINE:,} bytes")
            continue
        if not line.data.strip(b"\r\n"):
            source.skip()
            continue
        fields, reason = _record(source, delimiter, None if header is None else len(header))
        if header is None:
            header = _header(path, fields, reason)
        elif reason:
            yield _problem(path, source.taken, reason)
        else:
            yield line.number, dict(zip(header, fields, strict=True))


def _record(source: _Source, delimiter: str, width: int | None) -> tuple[list[str], str | None]:
    """The next record's fields and why it is refused, if it is; `width` is the number of fields it must have."""
    fields: list[str] = []
    reason = None
    try:
        fields = next(csv.reader(source.record_lines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        unclosed = "end of data" in str(error)
        reason = "a quote is opened and never closed" if unclosed else f"not CSV: {error}"
        source.give_back()
    if not reason and width is not None and len(fields) != width:
        reason = f"{len(fields)} fields where the header has {width}"
    if reason and delimiter == "\t":
        plain = source.taken[0].data.decode("utf-8", "surrogateescape").rstrip("\r\n").split(delimiter)
        if len(plain) == width:
            source.give_back()
            fields, reason = plain, None
    return fields, reason or (None if all(map(_is_utf8, fields)) else "not UTF-8")


def _is_utf8(field: str) -> bool:
    """Whether no byte of the field had to be escaped when it was decoded."""
    try:
        field.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _header(path: Path, fields: list[str], reason: str | None) -> list[str]:
    if reason or not fields:
        raise SpectraError(f"{path}, line 1: the header cannot be read ({reason}). It must name the columns, in UTF-8.")
    names = [field.strip() for field in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpectraError(f"{path}, line 1: the header names {twice[0]!r} twice. Give every column its own name.")
    return names


def _problem(path: Path, lines: list[Line], reason: str) -> Problem:
    raw = b"".join(line.data for line in lines)
    return Problem(file=str(path), line=lines[0].number, column=None, reason=reason, raw=printable(raw))
