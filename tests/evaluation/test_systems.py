from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.evaluation import systems
from spectra_nsa.evaluation.bm25 import BM25System, split_identifiers
from spectra_nsa.evaluation.open import open_system
from spectra_nsa.evaluation.systems import DenseSystem, nearest

from .words import WordModel


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 40), st.integers(1, 64), st.integers(0, 3))
def test_nearest_agrees_with_sorting_all_scores(q: int, n: int, k: int, block: int, levels: int) -> None:
    rng = np.random.default_rng(q * 1000 + n)
    queries, documents = rng.normal(size=(q, 4)), rng.normal(size=(n, 4))
    if levels:  # many exact ties
        queries, documents = np.round(queries * levels), np.round(documents * levels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systems, "_BLOCK", block)
        got = nearest(queries.astype(np.float32), documents.astype(np.float32), k)
    every = np.sort(queries @ documents.T, axis=1)[:, ::-1][:, :k]
    np.testing.assert_allclose(got.scores, every, rtol=1e-4, atol=1e-5)
    assert all(len(set(row)) == min(k, n) for row in got.index.tolist())


def test_ties_at_the_last_rank_are_drawn_at_random() -> None:
    ranking = nearest(np.ones((400, 2), dtype=np.float32), np.ones((10, 2), dtype=np.float32), 3)
    counts = np.bincount(ranking.index.ravel(), minlength=10)
    assert counts.sum() == 1200 and counts.min() > 80 and counts.max() < 160
    best = np.array([[2.0], [1.0], [1.0], [3.0]], dtype=np.float32)
    assert all({0, 3} < set(row) for row in nearest(np.ones((50, 1), dtype=np.float32), best, 3).index.tolist())


def test_dense_system_encodes_unit_rows_and_truncates() -> None:
    system = DenseSystem("m", WordModel(), dim=8)
    rows = system.encode_queries(["a b", "c"])
    assert rows.shape == (2, 8) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert system.encode_documents([]).shape == (0, 8)


def test_too_many_dimensions_are_refused() -> None:
    with pytest.raises(SpectraError, match="between 1 and 64"):
        DenseSystem("m", WordModel(), dim=65)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parseHTTPRequest2", "parsehttprequest2 parse http request 2"),
        ("os.path_sep", "os path_sep path sep"),
        ("Plain words, here!", "plain words here"),
        ("__init__ x", "init x"),
        ("naïve Straße 東京", "naïve strasse 東京"),
        ("ÉcoleHTTPÜber", "écolehttpüber école http über"),
        ("TNFα", "tnfα tnf α"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("机器学习", "机器 器学 学习"),
    ],
)
def test_identifiers_are_split(text: str, words: str) -> None:
    assert split_identifiers(text) == words.split()


@pytest.mark.parametrize(
    ("query", "documents"),
    [
        ("cafe\u0301", ["a bar", "the café"]),
        ("हिन्दी भाषा", ["हिंसा और भय की दवा", "हिन्दी एक भाषा है"]),
        ("机器学习", ["今天天气很好", "他研究机器学习和统计"]),
        ("タワー", ["東京の駅", "東京タワーに行く"]),
        ("น้ำดี", ["ฝนตกหนัก", "ที่นี่น้ำดีมาก"]),
    ],
)
def test_bm25_finds_words_in_any_script(query: str, documents: list[str]) -> None:
    assert BM25System().search([query], documents, 2).index.tolist() == [[1, -1]]


def test_bm25_skips_documents_that_share_no_word() -> None:
    documents = ["def read_json(path): load a JSON file", "def sortedKeys(mapping): sort keys", "nothing in common"]
    ranking = BM25System().search(["reading json", "sorted keys", "zebra"], documents, 2)
    assert ranking.index.shape == (3, 2)
    assert ranking.index[:, 0].tolist() == [0, 1, -1]
    assert ranking.index[0, 1] == -1 and ranking.scores[0, 1] == -np.inf


def test_bm25_without_documents_or_words() -> None:
    assert BM25System().search(["a"], [], 5).index.shape == (1, 0)
    assert BM25System().search(["a"], ["", "!"], 5).index.tolist() == [[-1, -1]]


def test_bm25_scores_follow_the_formula() -> None:
    """Robertson's formula with Lucene's idf, computed by hand on a tiny corpus."""
    documents = ["cat cat dog", "dog", "bird bird bird bird"]
    got = BM25System().search(["cat"], documents, 3)
    idf = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    norm = 1.5 * (1 - 0.75 + 0.75 * 3 / (8 / 3))
    assert got.scores[0, 0] == pytest.approx(idf * 2 / (2 + norm), rel=1e-5)


def test_open_system_reports_what_is_missing(tmp_path: Path) -> None:
    assert open_system("bm25").name == "bm25"
    with pytest.raises(SpectraError, match="not a model folder"):
        open_system("./nowhere")
    with pytest.raises(SpectraError, match="neither config"):
        open_system(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mystery"}))
    with pytest.raises(SpectraError, match="cannot be opened"):
        open_system(tmp_path)
