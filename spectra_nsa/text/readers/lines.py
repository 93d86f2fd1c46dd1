"""Lines of a plain or compressed file as bytes, numbered, bounded in length; nothing is decoded here.

A line over `MAX_LINE` bytes is given by its beginning only and marked, so that a broken file cannot fill the memory.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from spectra_nsa.core.errors import SpectraError, missing_extra

MAX_LINE = 1_000_000
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 16


class Line(NamedTuple):
    """`number` counts from 1; `data` keeps its line break; `too_long` marks a line that was cut."""

    number: int
    data: bytes
    too_long: bool = False


class _ZstdStream(io.RawIOBase):
    """Decompresses zstd frames one after the other, and notices when the last one is cut short."""

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


def _reader(path: Path, file: IO[bytes]) -> Any:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file), _CHUNK)
    if path.suffix in (".zst", ".zstd"):
        return io.BufferedReader(_ZstdStream(file), _CHUNK)
    return file


def read_lines(path: str | Path, longest: int = MAX_LINE) -> Iterator[Line]:
    """Yields a file's lines; `.gz` and `.zst` are decompressed, a byte-order mark is removed.

    Args:
        path: the file.
        longest: how many bytes of a line to keep.

    Raises:
        SpectraError: the file cannot be read, or its compressed data is damaged or ends early.
    """
    path, number = Path(path), 0
    try:
        with path.open("rb") as file:
            stream = _reader(path, file)
            while data := stream.readline(longest + 1):
                number += 1
                too_long = len(data) > longest and not data.endswith(b"\n")
                rest = data
                while too_long and rest and not rest.endswith(b"\n"):
                    rest = stream.readline(_CHUNK)
                yield Line(number, data.removeprefix(_BOM) if number == 1 else data, too_long)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SpectraError(
            f"{path}: the compressed data is damaged or ends early after line {number:,} ({error}). "
            "Get the file again; to keep what can be read, decompress it with zcat or zstdcat into a new file."
        ) from error
    except OSError as error:
        raise SpectraError(f"{path}: cannot be read ({error.strerror or error}).") from error
