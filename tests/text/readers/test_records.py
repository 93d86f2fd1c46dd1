"""Files to records: all formats, all compressions, and broken files."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.readers.records import file_format, read_records
from spectra_nsa.text.rows import Problem


def split(path):
    items = list(read_records(path))
    return [i for i in items if not isinstance(i, Problem)], [i for i in items if isinstance(i, Problem)]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", '{"text": "é"}\n'), ("a.csv", "text\né\n"), ("a.tsv", "text\né\n")]
)
def test_formats_and_compressions(write, name, text, ending):
    good, bad = split(write(name + ending, text))
    assert [record.values for record in good] == [{"text": "é"}]
    assert not bad


def test_file_format():
    assert file_format("x/train.v2.JSONL.gz") == ".jsonl"
    assert file_format("a.parquet") == ".parquet"
    assert file_format("a.parquet.gz") is None
    assert file_format("notes.txt") is None


def test_consecutive_zstd_frames(tmp_path):
    import zstandard

    pack = zstandard.ZstdCompressor().compress
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(pack(b'{"text": "a"}\n{"te') + pack(b'xt": "b"}\n'))
    assert [record.values["text"] for record in split(path)[0]] == ["a", "b"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_truncated_compression_is_an_error(write, ending):
    path = write(f"a.jsonl.{ending}", [{"text": f"row {i} {i * 7919 % 1009}"} for i in range(5000)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SpectraError, match=r"(?s)a\.jsonl.*damaged or ends early after line.*Download the file again"):
        list(read_records(path))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_content_that_does_not_match_the_extension(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b'{"text": "not packed at all"}\n')
    with pytest.raises(SpectraError, match=name):
        list(read_records(path))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not JSON at character 1"),
        (b'{"text": "cut', "not JSON"),
        (b'["a list"]', "expected a JSON object, got a list"),
        (b"3", "a number"),
        (b'{"text": "\xff"}', "not UTF-8 at byte 11"),
        (b'{"text": "a", "text": "b"}', "the key 'text' appears twice"),
        (b"[" * 100_000, "cannot be read|not JSON"),
    ],
)
def test_a_bad_line_does_not_affect_the_others(write, line, reason):
    good, bad = split(write("a.jsonl", b'{"text": "a"}\n' + line + b'\n\n{"text": "b"}'))
    assert [(record.line, record.values["text"]) for record in good] == [(1, "a"), (4, "b")]
    assert [problem.line for problem in bad] == [2]
    assert re.search(reason, bad[0].reason)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_of_two_megabytes(write, name):
    rows = {"a.jsonl": b'{"text": "a"}\n{"text": "%s"}\n{"text": "b"}\n', "a.csv": b"text\na\n%s\nb\n"}
    good, bad = split(write(name, rows[name] % (b"x" * 2_000_000)))
    assert [record.values["text"] for record in good] == ["a", "b"]
    assert "longer than 1,000,000" in bad[0].reason
    assert len(bad[0].raw) == 2_000


def test_byte_order_mark(write):
    for name, text in (("a.jsonl", '{"text": "a"}\n'), ("a.csv", "text\na\n")):
        assert split(write(name, b"\xef\xbb\xbf" + text.encode()))[0][0].values == {"text": "a"}


def test_json_array(write):
    good, bad = split(write("a.json", '[\n {"text": "a"},\n 3,\n {"text": "b"}\n]'))
    assert [record.line for record in good] == [1, 3]
    assert [problem.line for problem in bad] == [2]
    assert (
        split(write("a.json", '[{"a": 1, "a": 2}, {"a": {"b": 1, "b": 2}}]'))[1][0].reason
        == "the key 'a' appears twice"
    )
    assert split(write("b.json", '{"text": "a"}\n{"text": "b"}\n'))[0][1].line == 2
    with pytest.raises(SpectraError, match="not JSON"):
        list(read_records(write("c.json", '[{"text": ')))


def test_quoted_line_breaks_keep_the_line_numbers(write):
    good, bad = split(write("a.csv", 'a,b\r\n"one\nline","say ""hi"""\r\n1,2,3\r\nx,y\r\n'))
    assert [(r.line, r.values) for r in good] == [(2, {"a": "one\nline", "b": 'say "hi"'}), (5, {"a": "x", "b": "y"})]
    assert [(p.line, p.reason) for p in bad] == [(4, "3 fields, but the header has 2")]


def test_trailing_separators_of_a_spreadsheet(write):
    good, bad = split(write("a.csv", "question,answer,,\nq1,a1,,\nq2,a2\n,,,\nq3,a3,,remark,,\nq4\nq5,a5,,,x\n"))
    named = [{name: value for name, value in record.values.items() if name} for record in good]
    assert named == [{"question": f"q{i}", "answer": f"a{i}"} for i in (1, 2, 3)]
    assert [(problem.line, problem.reason) for problem in bad] == [
        (6, "1 field, but the header has 4 (2 with a name)"),
        (7, "5 fields, but the header has 4 (2 with a name)"),
    ]
    good, bad = split(write("b.csv", "question,answer\r\nq1,a1,,\r\n,,,\r\n"))
    assert [record.values for record in good] == [{"question": "q1", "answer": "a1"}] and not bad
    good, bad = split(write("c.tsv", 'a\tb\t\n"x\ty\t\n'))
    assert [record.values for record in good] == [{"a": '"x', "b": "y", "": None}] and not bad


def test_quotes_escaped_by_a_backslash_are_named(write):
    good, bad = split(write("a.csv", 'a,b\n"say \\"hi\\" there",x\n"end\\"",y\nfine,z\n'))
    assert [record.values["a"] for record in good] == ["fine"]
    assert all('is written twice (""), not with a backslash' in problem.reason for problem in bad) and len(bad) == 2


def test_byte_order_mark_and_line_ends_of_windows(write):
    good, bad = split(write("a.csv", b'\xef\xbb\xbfquestion,answer\r\n"q, 1",a1\r\n\r\n000123,a2\r\n'))
    assert [tuple(record.values.items()) for record in good] == [
        (("question", "q, 1"), ("answer", "a1")), (("question", "000123"), ("answer", "a2"))
    ]  # fmt: skip
    assert not bad


def test_an_open_quote_does_not_swallow_the_file(write):
    good, bad = split(write("a.csv", 'a,b\n1,2\n"open,3\n4,5\n6,7\n'))
    assert [record.line for record in good] == [2, 4, 5]
    assert [(problem.line, problem.reason) for problem in bad] == [(3, "a quote is never closed")]


def test_tsv_quotes_may_be_literal(write):
    good, bad = split(write("a.tsv", 'a\tb\n"Hello" he said\tx\n"open\ty\n"a\tb"\tz\n'))
    assert [record.values["a"] for record in good] == ['"Hello" he said', '"open', "a\tb"]
    assert not bad


def test_csv_invalid_utf8(write):
    good, bad = split(write("a.csv", b"a,b\n1,\xff\n3,4\n"))
    assert [record.line for record in good] == [3]
    assert (bad[0].line, bad[0].reason) == (2, "not UTF-8")


def test_csv_header(write):
    with pytest.raises(SpectraError, match="names 'a' twice"):
        list(read_records(write("a.csv", "a,a\n1,2\n")))
    with pytest.raises(SpectraError, match="cannot read the header"):
        list(read_records(write("b.csv", b"\xff,a\n1,2\n")))


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1), min_size=2, max_size=2)))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(buffer.getvalue().encode())
    good, bad = split(path)
    assert [[r.values["a"], r.values["b"]] for r in good] == rows
    assert not bad


def test_parquet_with_invalid_text(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = pa.array([b"fine", b"\xff"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    good, _ = split(tmp_path / "a.parquet")
    assert [record.values["text"] for record in good] == [b"fine", b"\xff"]
