"""Retrieval folders."""

from __future__ import annotations

import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.beir import load_beir
from spectra_nsa.text.sources import load_source


@pytest.fixture
def folder(write, tmp_path):
    write("b/corpus.jsonl.gz", [{"_id": "d1", "title": "T", "text": "x"}, {"_id": 2, "title": "", "text": "y"}])
    write(
        "b/queries.jsonl", [{"_id": "q1", "text": "one"}, {"_id": "q2", "text": "two"}, {"_id": "q3", "text": "three"}]
    )
    write(
        "b/qrels/test.tsv",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\t2\t0\nq2\t2\t0\nq1\tnone\t1\nq9\td1\t1\nq1\td1\n",
    )
    return tmp_path / "b"


def test_load_beir(folder):
    found = load_beir(folder)
    assert found.corpus == {"d1": "T x", "2": "y"}
    assert found.queries == {"q1": "one"}
    assert found.qrels == {"q1": {"d1": 2, "2": 0}}
    assert (found.name, found.split, found.missing, found.quarantined) == ("b", "test", 2, 1)
    assert found.problems[0].line == 7
    assert "1 query without a relevant document" in found.notes[0]


def test_splits(folder, write):
    write("b/qrels/dev.tsv", "q2\td1\t1\n")  # no header
    assert load_beir(folder).split == "test"
    assert load_beir(folder, "dev").queries == {"q2": "two"}
    with pytest.raises(SpectraError, match=r"no split 'train'. Choose one of: dev, test"):
        load_beir(folder, "train")


def test_broken_corpus_lines(folder, write):
    write(
        "b/corpus.jsonl.gz", '{"_id": "d1", "text": "x"}\n{"_id": "d1", "text": "again"}\nbroken\n{"text": "no id"}\n'
    )
    found = load_beir(folder)
    assert (found.corpus, found.quarantined) == ({"d1": "x"}, 4)


def test_grades_are_whole_numbers(folder, write):
    lines = ["q1\td1\t1.0", "q1\t2\t-1", "q2\td1\t0.9", "q2\t2\t0.4", "q3\td1\tnan", "q3\t2\t2"]
    write("b/qrels/test.tsv", "\n".join(lines))
    found = load_beir(folder)
    assert found.qrels == {"q1": {"d1": 1, "2": -1}, "q3": {"2": 2}}
    assert [problem.line for problem in found.problems] == [3, 4, 5]
    assert "the grade 0.9 is not a whole number" in found.problems[0].reason
    write("b/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0.9\n")
    with pytest.raises(
        SpectraError, match=r"Lines were quarantined; the first is line 2: the grade 0\.9 is not a whole"
    ):
        load_beir(folder)


def test_a_judgment_that_contradicts_an_earlier_one_is_refused(folder, write):
    write("b/qrels/test.tsv", "q1\td1\t2\nq1\td1\t2\nq1\td1\t0\n")
    found = load_beir(folder)
    assert found.qrels == {"q1": {"d1": 2}}
    assert [(problem.line, problem.reason) for problem in found.problems] == [
        (3, "d1 was judged 2 for q1 before, and 0 here; the first is used")
    ]


def test_ids_are_text(folder, write):
    corpus = [{"_id": "000123", "text": "x"}, {"_id": 123, "text": "y"}, {"_id": 7.0, "text": "z"}]
    write("b/corpus.jsonl.gz", [*corpus, {"_id": True, "text": "t"}, {"_id": 1.5, "text": "f"}])
    write("b/qrels/test.tsv", b"q1\t000123\t1\nq2 0 7.0 1\nq3\t\xff\t1\n")
    found = load_beir(folder)
    assert found.corpus == {"000123": "x", "123": "y", "7": "z"}
    assert found.qrels == {"q1": {"000123": 1}, "q2": {"7": 1}}
    assert [problem.reason for problem in found.problems[2:]] == ["not UTF-8 at byte 4 of the line"]


def test_a_title_that_is_not_text_costs_the_title(folder, write):
    rows = '{"_id": "d1", "title": NaN, "text": "x"}\n{"_id": "d2", "title": 5, "text": "y"}\n'
    write(
        "b/corpus.jsonl.gz", rows + '{"_id": "d3", "title": "T", "text": NaN}\n{"_id": "d4", "title": "", "text": "w"}'
    )
    found = load_beir(folder)
    assert (found.corpus, found.quarantined) == ({"d1": "x", "d2": "y", "d3": "T", "d4": "w"}, 1)
    assert "2 titles left out: not text (NaN, for example)" in found.notes
    texts = load_source(folder)
    assert list(texts.dataset["text"]) == ["x", "y", "T", "w"]
    assert texts.notes[1] == "2 titles left out: not text (NaN, for example)"


def test_errors(folder, tmp_path, write):
    with pytest.raises(SpectraError, match="does not exist"):
        load_beir(tmp_path / "none")
    write("b/qrels/test.tsv", "q1\tnone\t1\n")
    with pytest.raises(SpectraError, match="1 judgment with an unknown id"):
        load_beir(folder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(SpectraError, match=r"has no queries\.jsonl"):
        load_beir(folder)


@pytest.mark.data
def test_public_task(shared_data):
    found = load_beir(shared_data / "cosqa_retrieval_dev")
    assert (len(found.corpus), len(found.queries), found.missing) == (6267, 500, 0)
