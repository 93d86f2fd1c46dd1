"""What is a right answer, and therefore never a negative."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import spectra_nsa as sp

CORPUS = [
    {"_id": "d1", "title": "", "text": "red cat food"},
    {"_id": "d2", "title": "", "text": "red cat meal"},
    {"_id": "d3", "title": "", "text": "red cat bowl"},
    {"_id": "d4", "title": "", "text": "red dog"},
    {"_id": "q1", "title": "Question asked by somebody about an animal", "text": "red cat"},
]
QUERIES = [{"_id": "q1", "text": "red cat"}, {"_id": "q2", "text": "Red  Cat"}, {"_id": "q3", "text": "red dog walk"}]


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def beir(write, tmp_path):
    write("b/corpus.jsonl", CORPUS)
    write("b/queries.jsonl", QUERIES)
    write("b/qrels/train.tsv", "q1\td1\t1\nq3\td4\t1\nq1\td2\t1\n")
    write("b/qrels/test.tsv", "q2\td3\t1\nq1\td4\t0\n")
    return tmp_path / "b"


def negatives(source: Path, output: Path, **options) -> dict[str, str]:
    facts = sp.mine(source, "bm25", output, **options)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert facts["counts"]["rows"] == (options.get("limit") or facts["counts"]["rows"])
    return {row["anchor"]: row["negative"] for row in rows} | {"notes": facts["notes"]}


def test_a_document_that_any_split_or_later_judgment_calls_relevant_is_no_negative(beir, tmp_path):
    found = negatives(beir, tmp_path / "mined.jsonl", limit=1)
    assert found["red cat"] == "red dog", "not d2 (beyond the limit), d3 (the test split), nor the query itself"
    assert "3 further known answers of these anchors, never a negative" in found["notes"]
    (beir / "qrels" / "dev.tsv").write_text("q1\td4\t1\n")
    corpus = (beir / "corpus.jsonl").read_text() + json.dumps({"_id": "d5", "text": "a red bird"}) + "\n"
    (beir / "corpus.jsonl").write_text(corpus)
    assert negatives(beir, tmp_path / "mined.jsonl", limit=1)["red cat"] == "a red bird", "hits are searched again"


def test_the_judgments_of_a_beir_corpus_protect_the_answers_of_a_file(beir, write, tmp_path):
    pairs = write("p.jsonl", [{"anchor": "RED cat", "positive": "red cat food"}])
    assert negatives(pairs, tmp_path / "mined.jsonl", corpus=beir)["RED cat"] == "red dog"


def test_a_row_beyond_the_limit_protects_its_positive(write, tmp_path):
    rows = [
        {"anchor": "red cat", "positive": "red cat food"},
        {"anchor": "red dog", "positive": "red cat or dog"},
        {"anchor": "red bird", "positive": "red seed"},
        {"anchor": "Red cat", "positive": "red cat or dog"},
    ]
    found = negatives(write("p.jsonl", rows), tmp_path / "mined.jsonl", limit=3)
    assert found["red cat"] == "red seed"
    assert "1 further known answer of these anchors, never a negative" in found["notes"]
    assert not [note for note in negatives(tmp_path / "p.jsonl", tmp_path / "all.jsonl")["notes"] if "known" in note]


def test_the_pairs_of_a_corpus_protect_their_positives(write, tmp_path):
    pairs = write("p.jsonl", [{"anchor": "red cat", "positive": "red cat food"}])
    corpus = write(
        "c.jsonl", [{"anchor": "red cat", "positive": "red meal"}, {"anchor": "a dog", "positive": "red dog"}]
    )
    assert negatives(pairs, tmp_path / "mined.jsonl", corpus=corpus)["red cat"] == "red dog"
