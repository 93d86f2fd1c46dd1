"""Files as spreadsheets save them: other separators and encodings, and files that are no text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.readers.records import read_records
from spectra_nsa.text.rows import Record
from spectra_nsa.text.sources import load_source

Write = Callable[[str, object], Path]


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolon"), ("\t", "tab"), ("|", "vertical bar")])
def test_another_separator_is_found_and_noted(write: Write, mark: str, name: str) -> None:
    path = write("faq.csv", f'question{mark}answer\nq1{mark}"a, {mark} 1"\nq2{mark}a2\n')
    found = load_source(path)
    assert list(found.dataset["positive"]) == [f"a, {mark} 1", "a2"]
    assert f"faq.csv: the separator is a {name}" in found.notes


def test_one_column_stays_one_column(write: Write) -> None:
    for text in ("a;b\nno split\nx;y\n", "text\nx;y\n", "a;b\n"):
        assert all(len(item.values) == 1 for item in read_records(write("a.csv", text)) if isinstance(item, Record))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("question,answer\na,b\n".encode("utf-16"), "is UTF-16 text. Save it as UTF-8"),
        (b"PK\x03\x04\x14\x00", "is a spreadsheet or a zip archive"),
        (b"\x00\x01\x02\n", "is a binary file"),
        ("question,answer\n" + "Größe,groß\n" * 4 + "a,b\n" * 90, "4 of 94 rows are not UTF-8.*Windows-1252"),
        ("Größe,answer\na,b\n", "cannot read the header.*CSV UTF-8"),
    ],
)
def test_another_encoding_is_named(write: Write, data: str | bytes, message: str) -> None:
    path = write("a.csv", data.encode("cp1252") if isinstance(data, str) else data)
    with pytest.raises(SpectraError, match=message):
        list(read_records(path))


def test_single_rows_that_are_not_utf8_are_only_quarantined(write: Write) -> None:
    path = write("a.csv", ("question,answer\n" + "Größe,groß\n" * 3 + "a,b\n").encode("cp1252"))
    assert [item.line for item in read_records(path) if isinstance(item, Record)] == [5]
