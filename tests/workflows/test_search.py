"""Exact search, its cache, and the last run's model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import spectra_nsa as sp
from spectra_nsa.workflows import search
from tests.builders import bert_folder

TEXTS = ["open a file", "sort the list of text", "close the socket", "write a token to the file"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> sp.SpectraSentenceTransformer:
    return sp.warm_start(bert_folder(tmp_path_factory.mktemp("bert")))


def test_hits_are_the_nearest_by_cosine(model: sp.SpectraSentenceTransformer) -> None:
    hits = sp.similar_texts("open the file", TEXTS, model, k=3)
    scores = model.encode(TEXTS) @ model.encode("open the file")
    assert [hit.index for hit in hits] == np.argsort(-scores)[:3].tolist()
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.tolist(), reverse=True)[:3], abs=1e-5)
    assert [hit.text for hit in hits] == [TEXTS[hit.index] for hit in hits]


def test_several_queries_and_few_candidates(model: sp.SpectraSentenceTransformer) -> None:
    hits = sp.similar_texts(["open", "sort"], TEXTS[:2], model, k=9)
    assert [len(found) for found in hits] == [2, 2]


@pytest.mark.parametrize(("candidates", "k"), [([], 3), (TEXTS, 0)])
def test_nothing_to_search_is_refused(model: sp.SpectraSentenceTransformer, candidates: list[str], k: int) -> None:
    with pytest.raises(ValueError, match="nothing to search"):
        sp.similar_texts("open", candidates, model, k=k)


def test_vectors_are_kept_until_model_or_texts_change(
    model: sp.SpectraSentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model.save_pretrained(str(tmp_path / "m"))
    first = search.cached_documents(model, str(tmp_path / "m"), TEXTS)
    monkeypatch.setattr(search, "encode_corpus", lambda *_: pytest.fail("encoded again"))
    assert np.array_equal(search.cached_documents(model, str(tmp_path / "m"), TEXTS), first)
    for damaged in (tmp_path / "cache" / "spectra-nsa" / "vectors").glob("*.npy"):
        damaged.write_bytes(b"x")
    monkeypatch.setattr(search, "encode_corpus", lambda *_: first)
    assert np.array_equal(search.cached_documents(model, str(tmp_path / "m"), TEXTS), first)
    monkeypatch.setattr(search, "encode_corpus", lambda *_: first[:1])
    assert len(search.cached_documents(model, str(tmp_path / "m"), [*TEXTS, "more"])) == 1


def test_the_last_run_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="quickstart"):
        search.last_model()
    (tmp_path / "m").mkdir()
    search.remember_model(tmp_path / "m")
    assert search.last_model() == str(tmp_path / "m")
    (tmp_path / "m").rmdir()
    with pytest.raises(ValueError, match="gone"):
        search.last_model()
