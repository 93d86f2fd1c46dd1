"""The numbered pairs to mine, and their texts."""

from __future__ import annotations

import numpy as np
import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.sources import load_source
from spectra_nsa.workflows.mine.pool import build_pool

ROWS = [
    {"anchor": "one", "positive": "A b"},
    {"anchor": "two", "positive": "c"},
    {"anchor": "One ", "positive": "d"},
    {"anchor": "one", "positive": "a  B"},
]


def test_each_text_counts_once_in_the_form_it_first_appears_in(write):
    corpus = load_source(write("c.jsonl", [{"text": text} for text in ("e", "C", "f", "e")]))
    pool = build_pool(load_source(write("a.jsonl", ROWS)), corpus)
    assert pool.queries.get(range(len(pool.queries))) == ["one", "two"]
    assert pool.documents.get([4, 0, 4, 2, 1, 3]) == ["f", "A b", "f", "d", "c", "e"]
    assert pool.query_R.tolist() == [0, 1, 0, 0] and pool.document_R.tolist() == [0, 1, 2, 0]
    assert pool.first_R.tolist() == [True, True, True, False], "the last row repeats the first"
    pairs = list(zip(pool.own_query_P.tolist(), pool.own_document_P.tolist(), strict=True))
    assert pairs == [(0, 0), (0, 2), (1, 1)]
    assert [pairs[i] for i in pool.pair_R()] == [(0, 0), (1, 1), (0, 2), (0, 0)]
    assert pool.own(1, 2) == slice(2, 3)


def test_the_digest_is_of_the_texts_and_their_order(write):
    def digest(rows):
        return build_pool(load_source(write("a.jsonl", rows)), None).documents.digest

    assert digest(ROWS) == digest(ROWS[:3]) != digest([ROWS[1], ROWS[0], ROWS[2]])
    assert digest(ROWS) != digest([ROWS[0] | {"positive": "a b"}, *ROWS[1:]]), "the encoded text differs"


@pytest.mark.parametrize("memory", [32_000_000, 0])
def test_texts_of_a_mapped_source_are_those_of_the_file(write, monkeypatch, tmp_path, memory):
    from spectra_nsa.text import row_store

    monkeypatch.setattr(row_store, "IN_MEMORY", memory)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = [{"anchor": f"q{number}", "positive": f"d{number % 700}"} for number in range(2_500)]
    pool = build_pool(load_source(write("a.jsonl", rows)), None)
    requested = np.random.default_rng(0).integers(0, 700, 300)
    assert len(pool.documents) == 700 and pool.documents.get(requested) == [f"d{number}" for number in requested]


def test_a_corpus_of_scored_pairs_is_refused(write):
    scored = load_source(write("s.jsonl", [{"sentence1": "a", "sentence2": "b", "score": 0.5}]))
    with pytest.raises(SpectraError, match="--corpus s contains scored"):
        build_pool(load_source(write("a.jsonl", ROWS)), scored)
