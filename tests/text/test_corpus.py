"""The texts of several sources as one stream: lines, rows, refused rows, and the sample."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.corpus import Corpus, sample_texts
from spectra_nsa.text.readers.records import is_plain_text
from spectra_nsa.text.sources import load_source


def test_lines_and_every_text_column_in_order_any_number_of_times(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n  two \r\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.md.gz", "wt", encoding="utf-8") as file:
        file.write("drei\n")
    row = {"anchor": "a", "positive": "p", "negative": "n"}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n{\n")
    corpus = Corpus([tmp_path / name for name in ("a.txt", "b.md.gz", "c.jsonl")])
    assert list(corpus) == ["one", "two", "drei", "a", "p", "n"] == list(corpus)
    assert corpus.left_out == 1


def test_scores_and_labels_are_not_texts(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"sentence1": "x", "sentence2": "y", "score": 0.5}\n')
    (tmp_path / "l.jsonl").write_text('{"text": "z", "label": "good"}\n')
    assert list(Corpus([tmp_path / "s.jsonl", tmp_path / "l.jsonl"])) == ["x", "y", "z"]


def test_columns_apply_to_the_sources_that_have_them(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("headline,story\nh,s\n")
    (tmp_path / "b.jsonl").write_text('{"query": "q", "answer": "a"}\n')
    (tmp_path / "c.txt").write_text("c\n")
    sources = [tmp_path / name for name in ("a.csv", "b.jsonl", "c.txt")]
    columns = {"anchor": "headline", "positive": "story"}
    assert list(Corpus(sources, columns=columns)) == ["h", "s", "q", "a", "c"]
    for others in (sources[1:], sources[2:]):
        with pytest.raises(SpectraError, match="--columns"):
            Corpus(others, columns=columns)


def test_a_limit_counts_lines_and_rows_of_each_source(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": f"b{i}"}) + "\n" for i in range(3)))
    assert list(Corpus([tmp_path / "a.txt", tmp_path / "b.jsonl"], limit=2)) == ["1", "2", "b0", "b1"]


def test_a_broken_line_does_not_affect_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\xfe\n" + b"x" * 1_000_001 + b"\nfine\n")
    corpus = Corpus([tmp_path / "a.txt"])
    assert list(corpus) == ["good", "fine"] and corpus.left_out == 2
    assert [(problem.line, problem.reason.split(" at ")[0]) for problem in corpus.problems] == [
        (2, "not UTF-8"), (3, "the line is longer than 1,000,000 bytes")
    ]  # fmt: skip


def test_plain_text_has_one_reader(tmp_path: Path) -> None:
    from spectra_nsa.cli.texts import read_texts

    path = tmp_path / "a.txt"
    lines = [
        b"\xef\xbb\xbffirst",
        "one\u2028line".encode(),
        b"form\x0cfeed",
        b"\xff",
        "\u200b".encode(),
        b" ",
        b"last\r",
    ]
    path.write_bytes(b"\n".join(lines))
    expected = ["first", "one\u2028line", "form\x0cfeed", "last"]
    assert list(Corpus([path])) == read_texts(str(path)) == list(load_source(path).dataset["text"]) == expected
    assert Corpus([path]).left_out == load_source(path).quarantined == 1


def test_refused_rows_are_noted_for_each_source(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\xfe\n")
    (tmp_path / "b.csv").write_text("text,label\nfine,x\n,y\n,z\n")
    (tmp_path / "c.txt").write_text("whole\n")
    corpus = Corpus([tmp_path / name for name in ("a.txt", "b.csv", "c.txt")])
    a, b = tmp_path / "a.txt", tmp_path / "b.csv"
    assert corpus.notes == [
        f"{a}: 1 line quarantined; the first is {a}:2: not UTF-8 at byte 1 of the line",
        f"{b}: 2 rows quarantined; the first is {b}:3, column 'text': empty",
    ]
    assert corpus.left_out == len(corpus.problems) == 3


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "it is empty"), (b"\n \n", "it is empty"), (b"\xff\n", "none of its")]
)
def test_a_file_without_a_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(SpectraError, match=message):
        Corpus([tmp_path / "a.txt"])


def test_no_source_and_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source of texts given"):
        Corpus([])
    with pytest.raises(SpectraError, match="does not exist"):
        Corpus([tmp_path / "gone.txt"])


def test_plain_text_is_recognized_by_its_name() -> None:
    assert all(map(is_plain_text, ["a.txt", "A.TXT", "b.tar.md.gz", "c.rst.zst"]))
    assert not any(map(is_plain_text, ["a.jsonl", "a.txt.jsonl", "txt", "python:stdlib", "a.gz"]))


def test_a_sample_has_all_of_a_few_texts_and_is_uniform_over_many() -> None:
    assert sample_texts(["a", "b"], 5) == ["a", "b"]
    drawn = Counter(text for seed in range(3_000) for text in sample_texts("abcdef", 2, seed=seed))
    assert sum(drawn.values()) == 6_000
    assert all(880 < drawn[text] < 1_120 for text in "abcdef")  # 1,000 expected, four deviations of 26 on each side
