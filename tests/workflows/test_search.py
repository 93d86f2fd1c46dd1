"""Exact search, its cache, and the model of the last run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import spectra_nsa as sp
from spectra_nsa.core.errors import UsageError
from spectra_nsa.models.checks import resolve_folder
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


def test_no_queries_have_no_hits_and_any_container_is_searched(model: sp.SpectraSentenceTransformer) -> None:
    assert sp.similar_texts([], TEXTS, model) == []
    series = pd.Series(TEXTS, index=[2, 5, 6, 40])
    for candidates in (iter(TEXTS), np.array(TEXTS), series):
        assert sp.similar_texts("open", candidates, model, k=99) == sp.similar_texts("open", TEXTS, model, k=4)
    with pytest.raises(UsageError, match="candidates is a single text"):
        sp.similar_texts("open", "close", model)
    with pytest.raises(UsageError, match=r"query\[1\] is of type NoneType"):
        sp.similar_texts(["open", None], TEXTS, model)  # type: ignore[list-item]


def test_codes_give_all_texts_if_there_are_fewer_than_k(
    model: sp.SpectraSentenceTransformer, tmp_path: Path, encodings: list[int]
) -> None:
    folder = saved(model, tmp_path / "m")
    options: dict[str, Any] = {"bits": 64, "candidates": 1, "scoring": "asymmetric"}
    hits = search.code_hits(model, folder, "open", TEXTS, 99, **options)
    assert sorted(hit.index for hit in hits) == [0, 1, 2, 3]
    assert search.code_hits(model, folder, "open", [], 3, **options) == []


@pytest.mark.parametrize(("candidates", "k"), [([], 3), (TEXTS, 0)])
def test_nothing_to_search_is_refused(model: sp.SpectraSentenceTransformer, candidates: list[str], k: int) -> None:
    with pytest.raises(ValueError, match="nothing to search"):
        sp.similar_texts("open", candidates, model, k=k)
    with pytest.raises(ValueError, match="a query is empty"):
        sp.similar_texts(["open", "\u200b"], TEXTS, model)


@pytest.fixture
def encodings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Empties the cache, and returns the sizes of the corpora that were encoded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sizes: list[int] = []
    encode = search.encode_corpus

    def counted(model: Any, texts: Any) -> np.ndarray:
        sizes.append(len(texts))
        return encode(model, texts)

    monkeypatch.setattr(search, "encode_corpus", counted)
    return sizes


def saved(model: sp.SpectraSentenceTransformer, folder: Path) -> Path:
    model.save_pretrained(str(folder))
    return folder


def test_vectors_are_cached_until_the_texts_change(
    model: sp.SpectraSentenceTransformer, tmp_path: Path, encodings: list[int]
) -> None:
    folder = saved(model, tmp_path / "m")
    first = search.cached_documents(model, folder, TEXTS)
    assert np.array_equal(search.cached_documents(model, folder, TEXTS), first) and encodings == [4]
    for damaged in (tmp_path / "cache" / "spectra-nsa" / "vectors").glob("*/*.npy"):
        damaged.write_bytes(b"x")
    assert np.array_equal(search.cached_documents(model, folder, TEXTS), first) and encodings == [4, 4]
    assert len(search.cached_documents(model, folder, [*TEXTS, "more"])) == 5
    assert not np.array_equal(search.cached_documents(model, folder, TEXTS[::-1]), first)
    assert search.cached_codes(model, folder, TEXTS).shape == (4, 32) and encodings == [4, 4, 5, 4]


def test_the_same_name_in_two_folders_is_two_models(
    tmp_path: Path, encodings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = []
    for number in range(2):
        here = tmp_path / str(number)
        bert = bert_folder(here / "bert", seed=number)
        saved(sp.warm_start(bert), here / "m")
        monkeypatch.chdir(here)
        vectors.append(search.cached_documents(sp.load("m"), Path("m"), TEXTS))
    assert len(encodings) == 2 and not np.allclose(*vectors)


def sharded(folder: Path, scale: float) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"model-0000{1 + at % 2}-of-00002.safetensors" for at, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: scale * weights[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def pickled(folder: Path, scale: float) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({name: scale * value for name, value in weights.items()}, folder / "pytorch_model.bin")


def prompted(folder: Path, scale: float) -> None:
    file = folder / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": {"document": f"text {scale} "}}))


def tokenized(folder: Path, scale: float) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace('"file"', f'"{"f" * round(4 * scale)}"'))


@pytest.mark.parametrize("change", [sharded, pickled, prompted, tokenized])
def test_everything_that_changes_the_vectors_changes_the_cache_key(
    tmp_path: Path, encodings: list[int], change: Callable[[Path, float], None]
) -> None:
    """Two folders that differ in one file have separate vectors, even under the same path."""
    first, second = (bert_folder(tmp_path / name) for name in ("first", "second"))
    change(first, 1.0)
    change(second, 1.5)
    folder = tmp_path / "m"
    for source, expected in ((first, 1), (second, 2), (first, 2)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        search.cached_documents(sp.warm_start(folder), folder, TEXTS)
        assert len(encodings) == expected


def test_a_hub_model_is_identified_by_its_snapshot(
    tmp_path: Path, encodings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of a snapshot are links; a different revision under the same name is a different model."""
    snapshots = []
    for number in range(2):
        blobs = bert_folder(tmp_path / "blobs" / str(number), seed=number)
        snapshots.append(tmp_path / "snapshots" / str(number))
        for path in blobs.rglob("*"):
            link = snapshots[-1] / path.relative_to(blobs)
            link.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                link.symlink_to(path)
    for at, expected in ((0, 1), (1, 2), (0, 2)):
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, at=at, **__: str(snapshots[at]))
        folder = resolve_folder("org/name")
        search.cached_documents(sp.warm_start(folder), folder, TEXTS)
        assert len(encodings) == expected


def test_a_full_disk_only_skips_the_cache(
    model: sp.SpectraSentenceTransformer, tmp_path: Path, encodings: list[int], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = saved(model, tmp_path / "m")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert search.cached_documents(model, folder, TEXTS).shape[0] == 4
    assert "No space left on device" in capsys.readouterr().err


def test_the_last_run_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="quickstart"):
        search.last_model()
    (tmp_path / "m").mkdir()
    search.remember_model(tmp_path / "m")
    assert search.last_model() == str(tmp_path / "m")
    (tmp_path / "m").rmdir()
    with pytest.raises(ValueError, match="no longer exists"):
        search.last_model()


def test_a_model_that_cannot_be_remembered_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "spectra-nsa" / "last.json").mkdir(parents=True)
    search.remember_model(tmp_path)
    assert capsys.readouterr().err.count("warning: this model is not remembered") == 1
