"""Text files as spreadsheets save them: other encodings, other separators, and files that are no text."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.readers.lines import read_lines
from spectra_nsa.text.rows import Problem, Record

SEPARATORS = {";": "semicolon", "\t": "tab", "|": "vertical bar"}
_HEAD = 20  # lines that must agree on a separator
_FEW = 3  # rows that are not UTF-8 and do not make a file one of another encoding
_SAVE_AS = (
    "Save it as UTF-8 (in Excel: Save As, CSV UTF-8; elsewhere: iconv -f {encoding} -t UTF-8 {path} > NEW), and read "
    "the new file."
)


def find_separator(path: Path) -> str:
    """Returns the separator of a CSV file: a comma, unless its first lines agree on one of `SEPARATORS`.

    They agree if the header has one field by commas and several by the other separator, and so has each line after it.

    Raises:
        SpectraError: the file cannot be read.
    """
    lines = (line.data.decode("utf-8", "replace") for line in itertools.islice(read_lines(path), _HEAD))
    head = [line for line in lines if line.strip()]
    for separator in SEPARATORS if head and "," not in head[0] else ():
        if separator in head[0]:
            try:
                widths = {len(fields) for fields in csv.reader(head, delimiter=separator, strict=True)}
            except csv.Error:  # such as a quoted field that ends beyond these lines
                continue
            if len(head) > 1 and len(widths) == 1 and widths != {1}:
                return separator
    return ","


def check_text(path: Path, data: bytes) -> None:
    """Checks by its first line that a file of lines may be text in UTF-8.

    Raises:
        SpectraError: it is UTF-16, or the file of another program.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpectraError(f"{path} is UTF-16 text. {_SAVE_AS.format(encoding='UTF-16', path=path)}")
    if data.startswith(b"PK\x03\x04"):
        raise SpectraError(f"{path} is a spreadsheet or a zip archive, not text. Export the sheet as CSV UTF-8.")
    if b"\0" in data:
        raise SpectraError(f"{path} is a binary file, not CSV. Export its table as CSV UTF-8.")


def refuse_windows_1252(path: Path, items: Iterator[Record | Problem]) -> Iterator[Record | Problem]:
    """Yields the rows of a file, and raises at its end if many of them are text in Windows-1252.

    Raises:
        SpectraError: more than three rows and more than 1 % are not UTF-8, and could be Windows-1252.
    """
    rows, wrong, possible = 0, 0, True
    for item in items:
        rows += 1
        if isinstance(item, Problem) and item.reason.startswith("not UTF-8"):
            wrong += 1
            possible = possible and not re.search(r"\\x(81|8d|8f|90|9d)", item.raw)  # the bytes that it leaves out
        yield item
    if possible and wrong > _FEW and wrong > rows / 100:
        raise SpectraError(
            f"{path}: {wrong:,} of {counted(rows, 'row')} are not UTF-8. The file looks like Windows-1252. "
            + _SAVE_AS.format(encoding="WINDOWS-1252", path=path)
        )
