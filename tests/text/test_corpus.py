"""Texts of several sources as one stream: lines, rows, what is refused, and the sample."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.corpus import Corpus, sample_texts
from spectra_nsa.text.readers.records import is_plain


def test_lines_and_every_text_column_in_order_as_often_as_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n  two \r\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.md.gz", "wt", encoding="utf-8") as file:
        file.write("drei\n")
    row = {"anchor": "a", "positive": "p", "negative": "n"}
    (tmp_path / "c.jsonl").write_text(json.dumps(row) + "\n{\n")
    corpus = Corpus([tmp_path / name for name in ("a.txt", "b.md.gz", "c.jsonl")])
    assert list(corpus) == ["one", "two", "drei", "a", "p", "n"] == list(corpus)
    assert corpus.left_out == 1


def test_scores_and_labels_are_no_texts(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"sentence1": "x", "sentence2": "y", "score": 0.5}\n')
    (tmp_path / "l.jsonl").write_text('{"text": "z", "label": "good"}\n')
    assert list(Corpus([tmp_path / "s.jsonl", tmp_path / "l.jsonl"])) == ["x", "y", "z"]


def test_columns_hold_for_the_sources_that_have_them(tmp_path: Path) -> None:
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


def test_a_line_that_is_no_text_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\xfe\n" + b"x" * 1_000_001 + b"\nfine\n")
    corpus = Corpus([tmp_path / "a.txt"])
    assert list(corpus) == ["good", "fine"] and corpus.left_out == 2
    assert [(one.line, one.reason.split(" at ")[0]) for one in corpus.problems] == [
        (2, "not UTF-8"), (3, "the line is longer than 1,000,000 bytes")
    ]  # fmt: skip


def test_what_is_refused_is_told_of_each_source(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\xfe\n")
    (tmp_path / "b.csv").write_text("text,label\nfine,x\n,y\n,z\n")
    (tmp_path / "c.txt").write_text("whole\n")
    corpus = Corpus([tmp_path / name for name in ("a.txt", "b.csv", "c.txt")])
    a, b = tmp_path / "a.txt", tmp_path / "b.csv"
    assert corpus.notes == [
        f"1 broken rows or lines of {a} were left out, the first {a}:2: not UTF-8 at byte 1 of the line",
        f"2 broken rows or lines of {b} were left out, the first {b}:3, column 'text': empty",
    ]
    assert corpus.left_out == len(corpus.problems) == 3


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "it is empty"), (b"\n \n", "it is empty"), (b"\xff\n", "none of its")]
)
def test_a_file_without_a_text_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(SpectraError, match=said):
        Corpus([tmp_path / "a.txt"])


def test_nothing_named_and_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a source"):
        Corpus([])
    with pytest.raises(SpectraError, match="does not exist"):
        Corpus([tmp_path / "gone.txt"])


def test_plain_text_is_known_by_its_name() -> None:
    assert all(map(is_plain, ["a.txt", "A.TXT", "b.tar.md.gz", "c.rst.zst"]))
    assert not any(map(is_plain, ["a.jsonl", "a.txt.jsonl", "txt", "python:stdlib", "a.gz"]))


def test_a_sample_is_all_of_a_few_and_fair_among_many() -> None:
    assert sample_texts(["a", "b"], 5) == ["a", "b"]
    drawn = Counter(text for seed in range(3_000) for text in sample_texts("abcdef", 2, seed=seed))
    assert sum(drawn.values()) == 6_000
    assert all(880 < drawn[text] < 1_120 for text in "abcdef")  # 1,000 expected, four deviations of 26 on each side
