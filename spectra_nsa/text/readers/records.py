"""The records of a file in any supported format. The extension of the file name selects the reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.readers.delimited import read_delimited
from spectra_nsa.text.readers.foreign import SEPARATORS, find_separator, refuse_windows_1252
from spectra_nsa.text.readers.json import read_json, read_json_lines
from spectra_nsa.text.readers.lines import read_text_records
from spectra_nsa.text.readers.parquet import read_parquet
from spectra_nsa.text.rows import Problem, Record

_COMPRESSED = (".gz", ".zst", ".zstd")
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PLAIN_TEXT = (".txt", ".md", ".rst")  # read only if named: in a folder they may be anything, such as a README


def file_format(path: str | Path) -> str | None:
    """Returns the format that a file name stands for, such as ``".jsonl"``; ``None`` if it is not one of `FORMATS`."""
    suffix, compressed = _extension(path)
    return suffix if suffix in FORMATS and not (compressed and suffix == ".parquet") else None


def is_plain_text(source: str | Path) -> bool:
    """Returns whether a source is a plain text file by its name. Each line of such a file is a text."""
    return _extension(source)[0] in PLAIN_TEXT


def _extension(path: str | Path) -> tuple[str, bool]:
    """Returns the extension of a name without the one for compression, and whether it is compressed."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    compressed = bool(suffixes) and suffixes[-1] in _COMPRESSED
    if compressed:
        suffixes.pop()
    return suffixes[-1] if suffixes else "", compressed


def read_records(path: str | Path) -> Iterator[Record | Problem]:
    """Yields the rows of a file in order. A row that cannot be read is a `Problem`.

    Raises:
        SpectraError: the format is unknown, or the file as a whole cannot be read.
    """
    path = Path(path)
    extension = file_format(path)
    if is_plain_text(path):
        yield from refuse_windows_1252(path, read_text_records(path))
    elif extension is None:
        known = ", ".join((*FORMATS, *PLAIN_TEXT))
        raise SpectraError(
            f"{path}: unknown format. Supported extensions: {known}; all except .parquet also with .gz or .zst."
        )
    elif extension == ".parquet":
        yield from read_parquet(path)
    elif extension in (".csv", ".tsv"):
        separator = "\t" if extension == ".tsv" else find_separator(path)
        yield from refuse_windows_1252(path, read_delimited(path, separator))
    elif extension == ".json":
        yield from read_json(path)
    else:
        yield from read_json_lines(path)


def separator_notes(files: Sequence[Path]) -> tuple[str, ...]:
    """Returns a note for each CSV file that is not separated by commas.

    Raises:
        SpectraError: a file cannot be read.
    """
    found = [(path, find_separator(path)) for path in files if file_format(path) == ".csv"]
    return tuple(f"{path.name}: the separator is a {SEPARATORS[mark]}" for path, mark in found if mark in SEPARATORS)
