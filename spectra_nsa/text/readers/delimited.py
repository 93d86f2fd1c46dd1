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
from typing import NamedTuple

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.strings import is_utf8
from spectra_nsa.text.quarantine import printable
from spectra_nsa.text.readers.foreign import check_text
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


class _Header(NamedTuple):
    """The names of the columns, up to the last one that has a name, and the number of fields including the others."""

    names: list[str]
    width: int

    @property
    def size(self) -> str:
        """The number of columns, and of those with a name if some have none."""
        named = len(self.names) - self.names.count("")
        return str(self.width) if named == self.width else f"{self.width} ({named} with a name)"

    def record(self, fields: list[str]) -> dict[str, str | None] | None:
        """Returns column → field, or ``None`` if there are too few or too many fields.

        Fields beyond the named columns may be missing, and any number of empty ones may follow: a spreadsheet writes as
        many as its widest row has. All columns without a name share the key ``""`` and have no value.
        """
        while len(fields) > self.width and not fields[-1].strip():
            fields.pop()
        if not len(self.names) <= len(fields) <= self.width:
            return None
        values: dict[str, str | None] = dict(zip(self.names, fields, strict=False))
        if "" in values or self.width > len(self.names):
            values[""] = None
        return values


def read_delimited(path: Path, delimiter: str) -> Iterator[Record | Problem]:
    """Yields the records of a file whose first record names the columns. Rows without any field are skipped.

    Raises:
        SpectraError: the file cannot be read, or the header is broken or names a column twice.
    """
    csv.field_size_limit(max(csv.field_size_limit(), 4 * MAX_LINE))
    source = _LineBuffer(read_lines(path))
    header: _Header | None = None
    if (line := source.peek()) is not None:
        check_text(path, line.data)
    while (line := source.peek()) is not None:
        if line.too_long:
            source.skip()
            yield _problem(path, [line], f"the line is longer than {MAX_LINE:,} bytes")
            continue
        if not line.data.strip(b"\r\n " + delimiter.encode()):
            source.skip()
            continue
        fields, reason = _fields(source, delimiter)
        if header is None:
            header = _header(path, fields, reason)
            continue
        values = None if reason else header.record(fields)
        if values is None and delimiter == "\t":  # quotes are usually literal characters
            values = header.record(_plain_fields(source, delimiter))
            if values is not None:
                source.put_back()
        if values is None:
            reason = reason or f"{counted(len(fields), 'field')}, but the header has {header.size}"
        elif not all(is_utf8(value) for value in values.values() if value is not None):
            reason = "not UTF-8"
        else:
            yield Record(line.number, values, str(path))
            continue
        yield _problem(path, source.consumed, reason)


def _fields(source: _LineBuffer, delimiter: str) -> tuple[list[str], str | None]:
    """Returns the fields of the next record, and the reason if it is not valid CSV."""
    try:
        return next(csv.reader(source.record_lines(), delimiter=delimiter, strict=True)), None
    except csv.Error as error:
        unclosed = "end of data" in str(error)
        reason = "a quote is never closed" if unclosed else f"invalid CSV: {error}"
        source.put_back()
    if b'\\"' in source.consumed[0].data:
        reason += '; a quote inside a field is written twice (""), not with a backslash (\\")'
    return [], reason


def _plain_fields(source: _LineBuffer, delimiter: str) -> list[str]:
    """Returns the fields of the first line of the record, with quotes as literal characters."""
    return source.consumed[0].data.decode("utf-8", "surrogateescape").rstrip("\r\n").split(delimiter)


def _header(path: Path, fields: list[str], reason: str | None) -> _Header:
    reason = reason or (None if all(map(is_utf8, fields)) else "not UTF-8")
    if reason is None and not any(field.strip() for field in fields):
        reason = "no column has a name"
    if reason:
        how = " In Excel, save as CSV UTF-8." if reason == "not UTF-8" else ""
        raise SpectraError(
            f"{path}, line 1: cannot read the header ({reason}). It must name the columns, in UTF-8.{how}"
        )
    names = [field.strip() for field in fields]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise SpectraError(f"{path}, line 1: the header names {repeated[0]!r} twice. Column names must be unique.")
    while not names[-1]:
        names.pop()
    return _Header(names, len(fields))


def _problem(path: Path, lines: list[Line], reason: str) -> Problem:
    raw = b"".join(line.data for line in lines)
    return Problem(file=str(path), line=lines[0].number, column=None, reason=reason, raw=printable(raw))
