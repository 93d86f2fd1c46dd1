"""Records of one file (JSON Lines, CSV, TSV, Parquet, plain text) in; dictionaries and refused rows out, one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.text.quarantine import printable
from spectra_nsa.text.readers.delimited import read_delimited
from spectra_nsa.text.readers.lines import MAX_LINE, Line, read_lines
from spectra_nsa.text.rows import Problem

_COMPRESSED = (".gz", ".zst", ".zstd")
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PLAIN = (".txt", ".md", ".rst")  # read where a file is named; in a folder they may be anything, such as a README


class Record(NamedTuple):
    """`line` is the line (text files) or row (Parquet, JSON arrays, data sets) it starts at, from 1."""

    line: int
    values: dict[str, Any]
    file: str


def file_format(path: str | Path) -> str | None:
    """The format that a file's name stands for, such as ``".jsonl"``; ``None`` for none of ours."""
    suffix, compressed = _ending(path)
    return suffix if suffix in FORMATS and not (compressed and suffix == ".parquet") else None


def is_plain(source: str | Path) -> bool:
    """Whether a source is a plain text file by its name: every line of it is a text."""
    return _ending(source)[0] in PLAIN


def _ending(path: str | Path) -> tuple[str, bool]:
    """What a name ends in, and whether it is compressed besides."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    compressed = bool(suffixes) and suffixes[-1] in _COMPRESSED
    if compressed:
        suffixes.pop()
    return suffixes[-1] if suffixes else "", compressed


def read_records(path: str | Path) -> Iterator[Record | Problem]:
    """Yields a file's rows in order, the broken ones as `Problem`.

    Raises:
        SpectraError: the format is unknown, or the file as a whole cannot be read.
    """
    path = Path(path)
    kind = file_format(path)
    if is_plain(path):
        for line in read_lines(path):
            if line.data.strip():
                yield text_record(path, line)
    elif kind is None:
        known = ", ".join((*FORMATS, *PLAIN))
        raise SpectraError(f"{path}: unknown format. Known endings: {known}; all but .parquet also with .gz or .zst.")
    elif kind == ".parquet":
        yield from _read_parquet(path)
    elif kind in (".csv", ".tsv"):
        for item in read_delimited(path, "\t" if kind == ".tsv" else ","):
            yield item if isinstance(item, Problem) else Record(*item, str(path))
    elif kind == ".json" and _is_array(path):
        yield from _read_array(path)
    else:
        for line in read_lines(path):
            if line.data.strip():  # an empty line holds no row
                yield _json_record(path, line)


def _problem(path: Path, line: Line, reason: str) -> Problem:
    return Problem(file=str(path), line=line.number, column=None, reason=reason, raw=printable(line.data))


def text_record(path: Path, line: Line) -> Record | Problem:
    """One line of text, which may be blank; refused where it is too long or not UTF-8."""
    if line.too_long:
        return _problem(path, line, f"the line is longer than {MAX_LINE:,} bytes")
    try:
        return Record(line.number, {"text": line.data.decode("utf-8").strip()}, str(path))
    except UnicodeDecodeError as error:
        return _problem(path, line, f"not UTF-8 at byte {error.start + 1} of the line")


def _json_record(path: Path, line: Line) -> Record | Problem:
    """One line of JSON Lines."""
    text = text_record(path, line)
    if isinstance(text, Problem):
        return text

    def problem(reason: str) -> Problem:
        return _problem(path, line, reason)

    try:
        value = json.loads(text.values["text"])
    except json.JSONDecodeError as error:
        return problem(f"not JSON at character {error.pos + 1}: {error.msg}")
    except (RecursionError, ValueError) as error:  # nested too deep; a number with too many digits
        return problem(f"not readable JSON: {error}")
    if not isinstance(value, dict):
        return problem(f"not a JSON object but {_json_type(value)}")
    return Record(line.number, value, str(path))


def _json_type(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _is_array(path: Path) -> bool:
    """Whether a `.json` file is one array rather than a line per row."""
    first = next((line.data.strip() for line in read_lines(path) if line.data.strip()), b"")
    if not first.startswith(b"["):
        return False
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):  # the array goes on after its first line
        return True
    return bool(value) and isinstance(value[0], dict)


def _read_array(path: Path) -> Iterator[Record | Problem]:
    """A `.json` file that holds one array of objects; it is read as a whole."""
    try:
        rows = json.loads(b"".join(line.data for line in read_lines(path, 1 << 40)).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SpectraError(f"{path}: not JSON ({error}). Mend it, or write one object a line (JSON Lines).") from error
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield Record(number, row, str(path))
        else:
            reason = f"not a JSON object but {_json_type(row)}"
            yield Problem(file=str(path), line=number, column=None, reason=reason, raw=printable(row))


def _read_parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("pyarrow", "data") from error
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_000):
                columns = {name: _values(batch.column(i)) for i, name in enumerate(batch.schema.names)}
                for row in range(batch.num_rows):
                    number += 1
                    yield Record(number, {name: values[row] for name, values in columns.items()}, str(path))
    except (pa.ArrowException, OSError) as error:
        raise SpectraError(f"{path}: not a whole Parquet file after row {number:,} ({error}). Get it again.") from error


def _values(column: Any) -> list[Any]:
    """A column's values; a string that is not UTF-8 comes as bytes, which the checks refuse with its row."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        import pyarrow as pa

        return list(column.cast(pa.binary()).to_pylist()) if pa.types.is_string(column.type) else [None] * len(column)
