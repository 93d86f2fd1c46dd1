"""An index folder through changes, kills, two writers and damage."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_nsa.core.checksums import MANIFEST
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.index import collection, commits
from spectra_nsa.index.collection import Index
from spectra_nsa.index.commits import change
from spectra_nsa.index.dense import VectorsPart
from spectra_nsa.index.sparse.bm25 import BM25Part
from spectra_nsa.index.sparse.part import PostingsPart
from tests.index.sparse.conftest import names, random_rows

WORDS = "open close file read write socket list sort text".split()


def rows_of(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    words = [[*rng.choice(WORDS, rng.integers(0, 9))] for _ in range(count)]
    return {"sparse": random_rows(count, seed=seed), "bm25": words, "dense": rng.normal(size=(count, 8))}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    parts = {"sparse": PostingsPart(width=60), "bm25": BM25Part(), "dense": VectorsPart(width=8)}
    index = Index.create(tmp_path / "index", "hybrid", parts, facts={"note": 1})
    index.add(names(40), rows_of(40), texts=[f"text of {name}" for name in names(40)])
    return index


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_all_parts_see_the_same_documents(index: Index) -> None:
    index.add(names(9, 40), rows_of(9, seed=1))
    index.delete(["d2", "d41"])
    before = {name: index.part(name).search(rows_of(5, seed=2)[name], 6) for name in index.parts}
    ids = {name: [[r.id for r in index.records(row)] for row in hits.positions] for name, hits in before.items()}
    assert all(not {"d2", "d41"} & {*row} for rows in ids.values() for row in rows)
    index.compact()
    for name in ("sparse", "dense"):  # BM25 counts deleted documents until then
        hits = index.part(name).search(rows_of(5, seed=2)[name], 6)
        assert [[r.id for r in index.records(row)] for row in hits.positions] == ids[name]
        np.testing.assert_allclose(hits.scores, before[name].scores, rtol=1e-5)
    index.verify()
    assert files(index.folder) == {*index.commit.files, MANIFEST}


def test_dense_hits_are_those_of_brute_force(index: Index) -> None:
    vectors, queries = rows_of(40)["dense"].astype(np.float16).astype(np.float32), np.eye(8, dtype=np.float32)
    hits = index.part("dense").search(queries, 40)
    wanted = queries @ vectors.T
    np.testing.assert_array_equal(hits.positions, np.argsort(-wanted, axis=1, kind="stable"))
    np.testing.assert_allclose(index.part("dense").scores(queries, hits.positions), hits.scores, rtol=1e-5)


def test_bm25_is_that_of_bm25s(tmp_path: Path) -> None:
    import bm25s

    words = rows_of(60)["bm25"]
    queries = [["open", "file", "file"], ["socket", "unknown"], ["unknown"], []]
    index = Index.create(tmp_path / "index", "hybrid", {"bm25": BM25Part()})
    index.add(names(60), {"bm25": words})
    hits = index.part("bm25").search(queries, 60)
    reference = bm25s.BM25(k1=1.5, b=0.75)
    reference.index(words, show_progress=False)
    for row, query in enumerate(queries[:2]):
        known = [word for word in query if word in WORDS]
        scores = reference.get_scores(known)
        real = hits.positions[row] >= 0
        assert real.sum() == (scores > 0).sum()
        np.testing.assert_allclose(hits.scores[row, real], scores[hits.positions[row, real]], rtol=1e-5)
    assert (hits.positions[2:] == -1).all() and hits.empty == 1


def test_bm25_over_segments_weighs_words_by_all_of_them(tmp_path: Path) -> None:
    words = rows_of(60)["bm25"]
    one, many = (Index.create(tmp_path / name, "hybrid", {"bm25": BM25Part()}) for name in ("one", "many"))
    one.add(names(60), {"bm25": words})
    many.add(names(40), {"bm25": words[:40]})
    many.add(names(20, 40), {"bm25": words[40:]})
    assert len(many.segments) == 2
    left, right = (
        index.parts["bm25"].prepare([["open", "file"], ["socket"]], [s.parts["bm25"] for s in index.segments])
        for index in (one, many)
    )
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a.weights, b.weights)


@pytest.mark.parametrize("step", ["describe", "write_json"])
@pytest.mark.parametrize("work", ["add", "delete", "compact"])
def test_a_change_killed_in_the_middle(index: Index, step: str, work: str) -> None:
    """The process is killed while it writes; the next one sees the last commit, and its change removes the rest."""
    index.delete(["d1"])
    before = (index.folder / MANIFEST).read_bytes()
    child = os.fork()
    if child == 0:
        setattr(commits, step, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL))
        {
            "add": lambda: index.add(names(50, 90), rows_of(50, seed=3)),
            "delete": lambda: index.delete(["d5"]),
            "compact": index.compact,
        }[work]()
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert (index.folder / MANIFEST).read_bytes() == before
    again = Index.load(index.folder)
    assert again.count() == 39
    again.verify()
    again.add(names(1, 99), rows_of(1))
    assert Index.load(index.folder).count() == 40
    assert files(index.folder) - {".lock"} == {*again.commit.files, MANIFEST}


def test_a_full_disk(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(SpectraError, match=r"No space left.*unchanged"):
            index.add(names(9, 40), rows_of(9))
    assert files(index.folder) == {*index.commit.files, MANIFEST}
    index.add(names(9, 40), rows_of(9))
    assert index.count() == 49


def test_one_writer_and_readers(index: Index) -> None:
    reader = Index.load(index.folder)
    with change(index.folder), pytest.raises(UsageError, match="another process is using"):
        index.delete(["d0"])
    index.delete(["d0"])
    index.compact()
    assert reader.count() == 40  # it keeps the commit that it opened, whose files are gone from the folder
    assert reader.part("sparse").search(rows_of(3)["sparse"], 5).positions.shape == (3, 5)
    assert Index.load(index.folder).count() == 39


def test_a_reader_that_opens_while_a_writer_replaces_the_files(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def slow(folder: Path, facts: Any, parts: Any) -> Any:
        if not opened:
            opened.append(1)
            index.delete(["d0"])
            index.compact()
        return real(folder, facts, parts)

    real = collection.open_segment
    monkeypatch.setattr(collection, "open_segment", slow)
    assert Index.load(index.folder).count() == 39


def test_every_damage_is_found(index: Index) -> None:
    index.delete(["d4"])
    for name in [*index.commit.files]:
        path = index.folder / name
        data = path.read_bytes()
        for damaged in (data[:-1], data[:-3] + bytes([data[-3] ^ 1]) + data[-2:], None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with pytest.raises(SpectraError, match=r"damaged|does not exist|missing|list"):
                Index.load(index.folder).verify()
        path.write_bytes(data)
    Index.load(index.folder).verify()


def test_postings_out_of_order_are_an_error_and_no_crash(index: Index) -> None:
    (facts,) = index.commit.segments
    path = index.folder / facts.name / "sparse.documents.npy"
    documents = np.load(path)
    for wrong in (documents[::-1], np.full_like(documents, -5), np.full_like(documents, 2**30)):
        np.save(path, wrong)
        lists: Any = Index.load(index.folder).segments[0].parts["sparse"]
        queries = random_rows(3, seed=5)
        for numba in (False, True):
            if numba and wrong[0] == documents[-1]:  # they exist, and all are in one block
                continue
            with pytest.raises(SpectraError, match="order of existing documents"):
                lists.search(queries, 5, np.zeros(0, dtype=bool), numba=numba)
        with pytest.raises(SpectraError, match=r"order of existing|does not exist"):
            lists.check()


def test_a_manifest_of_another_kind(index: Index) -> None:
    path = index.folder / MANIFEST
    document = json.loads(path.read_text())
    document["parts"]["sparse"]["kind"] = "hnsw"
    path.write_text(json.dumps(document))
    with pytest.raises(SpectraError, match="unknown kind 'hnsw'"):
        Index.load(index.folder)
