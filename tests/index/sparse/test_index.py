"""The posting index against brute force: ties, deletions, merges, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.index.sparse import kernels, postings
from spectra_nsa.index.sparse.exchange import read_rows
from spectra_nsa.index.sparse.impacts import FORMS, decode_impacts, encode_impacts
from spectra_nsa.index.sparse.index import SparseIndex
from spectra_nsa.index.sparse.pruning import Pruning, parse_pruning, prune

from .conftest import brute_force, names, random_rows

QUERIES = random_rows(40, seed=1)


def found(index: SparseIndex, k: int = 7, queries: Any = QUERIES) -> list[list[str]]:
    return index.ids(index.search(queries, k))


def expected(rows: Any, k: int = 7, alive: np.ndarray | None = None) -> list[list[str]]:
    return [[f"d{at}" for at in hits] for hits in brute_force(QUERIES, rows, k, alive)]


def test_hits_are_those_of_brute_force(built: tuple[SparseIndex, Any]) -> None:
    index, rows = built
    assert [segment.facts.documents for segment in index.index.segments] == [120, 64, 16]
    assert found(index) == expected(rows)
    hits = index.search(QUERIES, 7)
    scores = (QUERIES @ rows.T).toarray()
    real = hits.positions >= 0
    assert (hits.scores[real] == np.take_along_axis(scores, np.maximum(hits.positions, 0), 1)[real]).all()
    assert (hits.scores[~real] == -np.inf).all()
    everything = np.tile(np.arange(200), (40, 1))
    np.testing.assert_array_equal(index.scores(QUERIES, everything), scores)
    assert index.index.records(hits.positions[0])[0].text is not None


@pytest.mark.parametrize("form", FORMS)
def test_compiled_and_plain_hits_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Weights that cannot be added exactly, several blocks and several threads."""
    monkeypatch.setattr(postings, "processors", lambda: 3)
    rng = np.random.default_rng(0)
    rows = random_rows(kernels.BLOCK + 500, 12, active=0.3)
    rows.data *= rng.choice(rng.random(50).astype(np.float32) + 0.1, rows.nnz)
    queries = random_rows(33, 12, seed=2, active=0.4)
    index = SparseIndex.build(tmp_path / "index", rows, names(rows.shape[0]), impacts=form)
    index.delete(names(5_000))
    (segment,) = index.index.segments
    lists = segment.parts["sparse"]
    assert isinstance(lists, postings.Postings)
    plain, compiled = (lists.search(queries, 50, segment.dead, numba=numba) for numba in (False, True))
    np.testing.assert_array_equal(plain.positions, compiled.positions)
    np.testing.assert_array_equal(plain.scores, compiled.scores)
    assert (plain.positions >= 5_000).any() and not ((plain.positions >= 0) & (plain.positions < 5_000)).any()
    np.testing.assert_array_equal(plain.scores[:, :5], lists.scores(queries, plain.positions)[:, :5])


def test_numba_is_imported_only_when_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "_scored", 0)
    assert postings.kernels_loaded()  # by this file
    assert not postings.use_numba(1_000)
    assert postings.use_numba(postings._IMPORT)
    monkeypatch.setattr(postings, "find_spec", lambda name: None)
    assert not postings.use_numba(postings._IMPORT)


def test_deleting_replacing_and_compacting(built: tuple[SparseIndex, Any], tmp_path: Path) -> None:
    index, rows = built
    gone = np.random.default_rng(0).choice(200, 90, replace=False)
    assert index.delete([*(f"d{at}" for at in gone), "unknown", "d0", "d0"]) == len({*gone.tolist(), 0})
    alive = np.ones(200, dtype=bool)
    alive[[*gone, 0]] = False
    assert index.count() == alive.sum()
    assert found(index) == found(SparseIndex.load(tmp_path / "index")) == expected(rows, alive=alive)
    index.compact()
    assert len(index.index.segments) == 1 and index.count() == alive.sum()
    assert found(index) == expected(rows, alive=alive)
    index.index.verify()
    assert index.delete([f"d{at}" for at in gone]) == 0
    index.add(rows[[5, 6]], ["d5", "d6"], texts=["new", "newer"], replace=True)
    assert index.count() == (alive | np.isin(np.arange(200), [5, 6])).sum()
    record = index.index.records(index.search(rows[5], 200).positions[0])
    assert [one.text for one in record if one.id == "d5"] == ["new"]
    assert index.delete(names(200)) > 0 and index.count() == 0
    assert index.search(QUERIES, 5).positions.shape == (40, 0)
    index.compact()
    assert not index.index.segments


def test_the_cut_between_equal_scores(tmp_path: Path) -> None:
    rows = csr_matrix(np.ones((50, 3), dtype=np.float32))
    index = SparseIndex.build(tmp_path / "index", rows, names(50))
    index.delete(["d1"])
    assert found(index, 3, rows[:1]) == [["d0", "d2", "d3"]]
    assert found(index, 1_000, rows[:1]) == [["d0", *names(48, 2)]]


def test_queries_and_documents_without_terms(tmp_path: Path) -> None:
    rows = csr_matrix(np.array([[0, 0], [1, 0], [0, 0]], dtype=np.float32))
    index = SparseIndex.build(tmp_path / "index", rows, names(3))
    hits = index.search(rows, 2)
    assert hits.empty == 2 and hits.positions.tolist() == [[-1, -1], [1, -1], [-1, -1]]
    assert found(index, 2, csr_matrix((0, 2))) == []


def test_what_is_refused(built: tuple[SparseIndex, Any], tmp_path: Path) -> None:
    index, rows = built
    with pytest.raises(SpectraError, match="queries have 59 dimensions, but the index has 60"):
        index.search(QUERIES[:, :59], 3)
    with pytest.raises(UsageError, match="at least 1"):
        index.search(QUERIES, 0)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(SpectraError, match="negative or not finite"):
            index.add(csr_matrix(np.full((1, 60), bad, dtype=np.float32)), ["new"])
    with pytest.raises(SpectraError, match="'d7' already"):
        index.add(rows[:2], ["new", "d7"])
    with pytest.raises(SpectraError, match="'new' occurs twice"):
        index.add(rows[:2], ["new", "new"])
    with pytest.raises(SpectraError, match="1 id but 2 rows"):
        index.add(rows[:2], ["new"])
    with pytest.raises(SpectraError, match="2 ids but 1 texts"):
        index.add(rows[:2], ["new", "newer"], texts=["one"])
    assert index.count() == 200 and found(index) == expected(rows)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        SparseIndex.build(tmp_path / "mine", rows, names(200))
    with pytest.raises(SpectraError, match="not an index"):
        SparseIndex.load(tmp_path / "mine")


@pytest.mark.parametrize(("form", "error"), [("float32", 0.0), ("float16", 2.0**-11), ("uint8", 2 ** (1 / 32) - 1)])
def test_the_error_of_rounded_impacts(form: Any, error: float) -> None:
    weights = np.exp2(np.random.default_rng(0).uniform(-9.9, 6, 10_000)).astype(np.float32)
    decoded = decode_impacts(encode_impacts(weights, form), form)
    assert np.abs(decoded / weights - 1).max() <= error * (1 + 1e-6)
    if form != "float32":
        with pytest.raises(SpectraError, match="too large"):
            encode_impacts(np.array([1e6], dtype=np.float32), form)


def test_pruning() -> None:
    rows = csr_matrix(np.array([[4, 1, 2, 2, 1], [0, 3, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=np.float32))
    kept = {
        "top=3": [[4, 0, 2, 2, 0], [0, 3, 0, 0, 0]],
        "top=2": [[4, 0, 2, 0, 0], [0, 3, 0, 0, 0]],
        "ratio=0.5": [[4, 0, 2, 2, 0], [0, 3, 0, 0, 0]],
        "mass=0.6": [[4, 0, 2, 0, 0], [0, 3, 0, 0, 0]],
        "mass=1": [[4, 1, 2, 2, 1], [0, 3, 0, 0, 0]],
    }
    for rule, wanted in kept.items():
        assert prune(rows, parse_pruning(rule)).toarray().tolist() == [*wanted, [0] * 5], rule
    for bad in ("top=0", "top=1.5", "ratio=2", "mass=0", "mass", "top=x", "size=3", "mass=nan"):
        with pytest.raises(UsageError):
            parse_pruning(bad)


def test_the_share_that_pruning_loses(tmp_path: Path) -> None:
    rows = random_rows(50, active=0.5)
    rule = Pruning(by="top", value=4)
    index = SparseIndex.build(tmp_path / "index", rows[:30], names(30), pruning=rule)
    index.add(rows[30:], names(20, 30))
    settings = index.index.parts["sparse"].settings()
    kept = prune(rows, rule)
    assert found(index) == expected(kept)
    assert settings["lost"] / settings["mass"] == pytest.approx(1 - kept.sum() / rows.sum())


def test_the_neutral_form(built: tuple[SparseIndex, Any], tmp_path: Path) -> None:
    index, rows = built
    index.delete(["d3"])
    index.export(tmp_path / "neutral")
    content = read_rows(tmp_path / "neutral")
    keep = np.arange(200) != 3
    assert (content.rows != rows[keep]).nnz == 0 and content.vocabulary is None
    again = SparseIndex.read(tmp_path / "neutral", tmp_path / "again")
    assert found(again) == found(index)
    words = [f"w{number}" for number in range(60)]
    named = SparseIndex.build(tmp_path / "named", rows, names(200), vocabulary=words)
    named.export(tmp_path / "more")
    assert read_rows(tmp_path / "more").vocabulary == words == SparseIndex.load(tmp_path / "named").vocabulary()
    named.save(tmp_path / "copy")
    copy = SparseIndex.load(tmp_path / "copy")
    copy.index.verify()
    copy.add(rows[:1], ["new"])
    assert copy.vocabulary() == words and found(named) == expected(rows)
