"""CSV and TSV files through the `csv` module, one record at a time. A broken record does not affect the others.

A quote that is never closed would swallow the rest of the file. Instead, the line on which it opens is quarantined,
and reading resumes at the next line. In a TSV file, where a quote is usually a literal character, such a line is split
at its tabs.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.quarantine import printable
from spectra_nsa.text.readers.lines import MAX_LINE, Line, read_lines
from spectra_nsa.text.rows import Problem, Record


class _LineBuffer:
    """Lines that can be put back, so that the lines consumed by a broken record are read again."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._returned: deque[Line] = deque()
        self.consumed: list[Line] = []

    def peek(self) -> Line | None:
        if not self._returned:
            line = next(self._lines, None)
            if line is None:
                return None
            self._returned.append(line)
        return self._returned[0]

    def record_lines(self) -> Iterator[str]:
        """Yields lines for `csv.reader`, up to a line that is too long or 1 MB in total."""
        self.consumed, size = [], 0
        while (line := self.peek()) is not None and not line.too_long and size <= MAX_LINE:
            self.consumed.append(self._returned.popleft())
            size += len(line.data)
            yield line.data.decode("utf-8", "surrogateescape")

    def put_back(self) -> None:
        """Puts back all consumed lines except the first."""
        self._returned.extendleft(reversed(self.consumed[1:]))
        del self.consumed[1:]

    def skip(self) -> None:
        self._returned.popleft()


def read_delimited(path: Path, delimiter: str) -> Iterator[Record | Problem]:
    """Yields the records of a file whose first record names the columns.

    Raises:
        SpectraError: the file cannot be read, or the header is broken or names a column twice.
    """
    csv.field_size_limit(max(csv.field_size_limit(), 4 * MAX_LINE))
    source = _LineBuffer(read_lines(path))
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
            yield _problem(path, source.consumed, reason)
        else:
            yield Record(line.number, dict(zip(header, fields, strict=True)), str(path))


def _record(source: _LineBuffer, delimiter: str, width: int | None) -> tuple[list[str], str | None]:
    """Returns the fields of the next record, and the reason if it is refused.

    Args:
        source: the lines.
        delimiter: the separator of fields.
        width: the number of fields it must have; ``None`` for the header.
    """
    fields: list[str] = []
    reason = None
    try:
        fields = next(csv.reader(source.record_lines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        unclosed = "end of data" in str(error)
        reason = "a quote is never closed" if unclosed else f"invalid CSV: {error}"
        source.put_back()
    if not reason and width is not None and len(fields) != width:
        reason = f"{len(fields)} fields, but the header has {width}"
    if reason and delimiter == "\t":
        plain = source.consumed[0].data.decode("utf-8", "surrogateescape").rstrip("\r\n").split(delimiter)
        if len(plain) == width:
            source.put_back()
            fields, reason = plain, None
    return fields, reason or (None if all(map(_is_utf8, fields)) else "not UTF-8")


def _is_utf8(field: str) -> bool:
    """Returns whether the field was decoded without escaped bytes."""
    try:
        field.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _header(path: Path, fields: list[str], reason: str | None) -> list[str]:
    if reason or not fields:
        raise SpectraError(f"{path}, line 1: cannot read the header ({reason}). It must name the columns, in UTF-8.")
    names = [field.strip() for field in fields]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SpectraError(f"{path}, line 1: the header names {repeated[0]!r} twice. Column names must be unique.")
    return names


def _problem(path: Path, lines: list[Line], reason: str) -> Problem:
    raw = b"".join(line.data for line in lines)
    return Problem(file=str(path), line=lines[0].number, column=None, reason=reason, raw=printable(raw))
