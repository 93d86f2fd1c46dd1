"""The numbered lines of a plain or compressed file, as bytes or as text.

A line over `MAX_LINE` bytes is cut and marked, so a broken file cannot exhaust memory.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.core.strings import is_blank
from spectra_nsa.text.quarantine import printable
from spectra_nsa.text.rows import Problem, Record

MAX_LINE = 1_000_000
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 16


class Line(NamedTuple):
    """One line of a file.

    Attributes:
        number: the line number, from 1.
        data: the bytes, including the line break.
        too_long: whether the line was cut.
    """

    number: int
    data: bytes
    too_long: bool = False


class _ZstdStream(io.RawIOBase):
    """Decompresses consecutive zstd frames, and raises EOFError if the last one is incomplete."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise missing_extra("zstandard", "data") from error
        self._file = file
        self._frame: Any = None
        self._new_frame = lambda: zstandard.ZstdDecompressor().decompressobj()
        self._error = zstandard.ZstdError
        self._input = self._output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            data = self._input or self._file.read(_CHUNK)
            if not data and self._frame is None:
                return 0
            if not data:
                raise EOFError("the compressed data ends early")
            self._frame = self._frame or self._new_frame()
            try:
                self._output = self._frame.decompress(data)
            except self._error as error:
                raise OSError(str(error)) from error
            self._input = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame
        size = min(len(buffer), len(self._output))
        buffer[:size], self._output = self._output[:size], self._output[size:]
        return size


def _decompressed(path: Path, file: IO[bytes]) -> Any:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file), _CHUNK)
    if path.suffix in (".zst", ".zstd"):
        return io.BufferedReader(_ZstdStream(file), _CHUNK)
    return file


def read_lines(path: str | Path, max_bytes: int = MAX_LINE) -> Iterator[Line]:
    """Yields the lines of a file. `.gz` and `.zst` are decompressed, and a byte-order mark is removed.

    Args:
        path: the file.
        max_bytes: the number of bytes after which a line is cut.

    Raises:
        SpectraError: the file cannot be read, or its compressed data is damaged or ends early.
    """
    path, number = Path(path), 0
    try:
        with path.open("rb") as file:
            stream = _decompressed(path, file)
            while data := stream.readline(max_bytes + 1):
                number += 1
                too_long = len(data) > max_bytes and not data.endswith(b"\n")
                rest = data
                while too_long and rest and not rest.endswith(b"\n"):
                    rest = stream.readline(_CHUNK)
                yield Line(number, data.removeprefix(_BOM) if number == 1 else data, too_long)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SpectraError(
            f"{path}: the compressed data is damaged or ends early after line {number:,} ({error}). "
            "Download the file again, or save its readable part with zcat or zstdcat."
        ) from error
    except OSError as error:
        raise SpectraError(f"{path}: cannot read the file ({error.strerror or error}).") from error


def read_text_records(path: Path) -> Iterator[Record | Problem]:
    """Yields each line of a plain text file as a record with the column `text`. Blank lines (`is_blank`) are skipped.

    Raises:
        SpectraError: the file cannot be read.
    """
    for line in read_lines(path):
        item = text_record(path, line)
        if isinstance(item, Problem) or not is_blank(item.values["text"]):
            yield item


def text_record(path: Path, line: Line) -> Record | Problem:
    """Returns a line, which may be blank, as a record; a `Problem` if it is too long or not UTF-8."""
    if line.too_long:
        return line_problem(path, line, f"the line is longer than {MAX_LINE:,} bytes")
    try:
        return Record(line.number, {"text": line.data.decode("utf-8").strip()}, str(path))
    except UnicodeDecodeError as error:
        return line_problem(path, line, f"not UTF-8 at byte {error.start + 1} of the line")


def line_problem(path: Path, line: Line, reason: str) -> Problem:
    """Returns the quarantined row of one line."""
    return Problem(file=str(path), line=line.number, column=None, reason=reason, raw=printable(line.data))
