"""The other engines against our exact index."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.index.backends.seismic import SeismicIndex, recall
from spectra_nsa.index.sparse.index import SparseIndex
from tests.index.sparse.conftest import names, random_rows

QUERIES = random_rows(20, seed=1)


@pytest.fixture
def rows() -> Any:
    rows = random_rows(150)
    rows.data *= np.random.default_rng(0).uniform(0.9, 1.1, rows.nnz).astype(np.float32)  # no equal scores
    return rows


@pytest.fixture
def edge(rows: Any, tmp_path: Path) -> Any:
    pytest.importorskip("qdrant_edge")
    from spectra_nsa.index.backends.edge import EdgeIndex

    metadata = [{"lang": "py" if number % 2 else "go", "year": number} for number in range(100)]
    index = EdgeIndex.build(tmp_path / "edge", rows[:100], names(100), metadata=metadata)
    yield index
    index.close()


def test_edge_finds_what_exact_search_does(edge: Any, rows: Any, tmp_path: Path) -> None:
    ours = SparseIndex.build(tmp_path / "ours", rows[:100], names(100))
    for index in (edge, ours):
        index.add(rows[100:], names(50, 100))
        assert index.delete(["d3", "d3", "d120", "unknown"]) == 2
    assert edge.count() == ours.count() == 148
    left, right = edge.search(QUERIES, 7), ours.search(QUERIES, 7)
    assert edge.ids(left) == ours.ids(right)
    np.testing.assert_allclose(left.scores, right.scores, rtol=1e-5)
    filtered = edge.ids(edge.search(QUERIES, 100, where={"lang": "go"}))
    wanted = [
        [key for key in row if int(key[1:]) < 100 and int(key[1:]) % 2 == 0]
        for row in ours.ids(ours.search(QUERIES, 148))
    ]
    assert filtered == wanted
    empty = edge.search(random_rows(2, active=0.0), 3)
    assert empty.empty == 2 and (empty.positions == -1).all()
    with pytest.raises(SpectraError, match="dimensions"):
        edge.search(QUERIES[:, :5], 3)


def _load(folder: Path, answers: Any) -> None:
    from spectra_nsa.index.backends.edge import EdgeIndex

    try:
        EdgeIndex.load(folder)
        answers.put("opened")
    except UsageError as error:
        answers.put(str(error))


def test_edge_is_open_in_one_process(edge: Any) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    other = context.Process(target=_load, args=(edge.folder, answers))
    other.start()
    assert "another process has" in answers.get(timeout=60)
    other.join()


def test_edge_misses_no_document_silently(edge: Any) -> None:
    from spectra_nsa.index.backends.edge import MANIFEST, EdgeIndex

    edge.close()
    path = edge.folder / MANIFEST
    facts = json.loads(path.read_text())
    assert facts["documents"] == [100, 100]
    for counts, fits in (([100, 130], True), ([90, 100], True), ([101, 101], False), ([0, 50], False), ("x", False)):
        path.write_text(json.dumps(facts | {"documents": counts}))
        if fits:
            EdgeIndex.load(edge.folder).close()
        else:
            with pytest.raises(SpectraError, match="damaged"):
                EdgeIndex.load(edge.folder)
    path.write_text(json.dumps(facts))
    edge._shard = EdgeIndex.load(edge.folder)._shard  # closed by the fixture


def test_seismic_with_its_recall(rows: Any, tmp_path: Path) -> None:
    pytest.importorskip("seismic")
    exact = SparseIndex.build(tmp_path / "exact", rows, names(150)).search(QUERIES, 5)
    index = SeismicIndex.build(tmp_path / "seismic", rows, names(150))
    again = SeismicIndex.load(tmp_path / "seismic")
    hits = again.search(QUERIES, 5)
    assert recall(hits, exact) > 0.8 and recall(exact, exact) == 1.0
    assert index.ids(hits) == again.ids(hits) and again.count() == 150
    with pytest.raises(SpectraError, match="cannot be changed"):
        again.add(rows, names(150))
    assert again.search(random_rows(1, active=0.0), 3).empty == 1
