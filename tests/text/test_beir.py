"""Retrieval folders."""

from __future__ import annotations

import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.beir import load_beir


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


def test_errors(folder, tmp_path, write):
    with pytest.raises(SpectraError, match="does not exist"):
        load_beir(tmp_path / "none")
    write("b/qrels/test.tsv", "q1\tnone\t1\n")
    with pytest.raises(SpectraError, match="1 judgments name an unknown id"):
        load_beir(folder)
    (folder / "queries.jsonl").unlink()
    with pytest.raises(SpectraError, match=r"has no queries\.jsonl"):
        load_beir(folder)


@pytest.mark.data
def test_public_task(shared_data):
    found = load_beir(shared_data / "cosqa_retrieval_dev")
    assert (len(found.corpus), len(found.queries), found.missing) == (6267, 500, 0)
