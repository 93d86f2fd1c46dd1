"""Files to raw rows, in a stream: JSON Lines, CSV/TSV, Parquet; gz and zst. A broken row never stops the others."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.text.rows import Problem

MAX_LINE = 1_000_000  # bytes; a longer line is a broken file, not a text to embed
ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".txt")
_RAW = 2_000

Row = tuple[int, dict[str, Any]]


def plain_suffix(path: Path) -> str:
    """The format's ending, without .gz or .zst."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in (".gz", ".zst"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_rows(path: Path) -> Iterator[Row | Problem]:
    """The rows of a file: (line number, values by column), or a `Problem` in a broken row's place.

    Raises:
        SpectraError: the format is unknown, or the file cannot be opened or decompressed.
    """
    readers = {
        ".jsonl": _read_json_lines,
        ".json": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".csv": _read_table,
        ".tsv": _read_table,
        ".txt": _read_text,
        ".parquet": _read_parquet,
    }
    suffix = plain_suffix(path)
    if suffix not in readers:
        raise SpectraError(f"{path}: unknown format. Readable: {', '.join(ENDINGS)}, also as .gz or .zst.")
    try:
        yield from readers[suffix](path)
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise SpectraError(f"{path} cannot be read to its end: {error}. Is it truncated?") from error


def _open(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix.lower() == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise missing_extra("zstandard", "data") from error
        return io.BufferedReader(_Zstd(zstandard.ZstdDecompressor().stream_reader(path.open("rb"), closefd=True)))
    return path.open("rb")


class _Zstd(io.RawIOBase):
    """zstandard's reader with its errors as OSError, and silence at a truncated end turned into one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.inner.read(len(buffer))
        except Exception as error:
            raise OSError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)


def _lines(path: Path) -> Iterator[tuple[int, str] | Problem]:
    """Numbered lines without their ends; a line that is too long or not UTF-8 is a problem."""
    with _open(path) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                length = len(line)
                while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                    length += len(rest)
                yield _problem(path, number, f"the line has more than {length + len(rest):,} bytes", line[:_RAW])
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            try:
                yield number, line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield _problem(path, number, f"not UTF-8 at byte {error.start + 1} of the line", line)


def _problem(path: Path, line: int, reason: str, raw: bytes | str) -> Problem:
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return Problem(file=str(path), line=line, column=None, reason=reason, raw=text[:_RAW])


def _read_json_lines(path: Path) -> Iterator[Row | Problem]:
    for item in _lines(path):
        if isinstance(item, Problem):
            yield item
            continue
        number, line = item
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            place = f" at column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else ""
            yield _problem(path, number, f"not JSON{place}", line)
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            yield _problem(path, number, f"a JSON object was expected, not a {type(value).__name__}", line)


def _read_text(path: Path) -> Iterator[Row | Problem]:
    for item in _lines(path):
        if isinstance(item, Problem):
            yield item
        elif item[1].strip():
            yield item[0], {"text": item[1]}


def _read_table(path: Path) -> Iterator[Row | Problem]:
    """CSV or TSV with a header. Quoted fields may hold line breaks; a bad line is set aside with its record."""
    delimiter = "\t" if plain_suffix(path) == ".tsv" else ","
    broken: list[Problem] = []
    current = 0

    def feed() -> Iterator[str]:
        nonlocal current
        for item in _lines(path):
            if isinstance(item, Problem):
                broken.append(item)
            else:
                current = item[0]
                yield item[1] + "\n"

    csv.field_size_limit(MAX_LINE)
    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        start = current + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield _problem(path, start, f"broken quoting: {error}", "")
            continue
        finally:
            yield from broken
            broken.clear()
        if not fields:
            continue
        if header is None:
            header = [name.strip() for name in fields]
        elif len(fields) != len(header):
            reason = f"{len(fields)} fields where the header has {len(header)}"
            yield _problem(path, start, reason, delimiter.join(fields))
        else:
            yield start, dict(zip(header, fields, strict=True))


def _read_parquet(path: Path) -> Iterator[Row | Problem]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    try:
        file = parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except Exception as error:  # pyarrow raises its own family, and some plain errors
        raise SpectraError(f"{path} is not a readable Parquet file: {error}") from error
