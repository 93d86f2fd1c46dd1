"""Search in blocks against sorting all scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spectra_nsa.core.cache import Cache
from spectra_nsa.index import topk, vectors
from spectra_nsa.index.blocks import Blocks
from spectra_nsa.index.topk import IndexPairs, pair_scores, search_group, top_k
from spectra_nsa.index.vectors import DiskVectors, SparseVectors, block_count, csr_arrays
from spectra_nsa.workflows.mine.gpu import search_group_by_torch


@pytest.fixture(autouse=True)
def small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(topk, "ROWS", 4)
    monkeypatch.setattr(vectors, "ROWS", 4)
    monkeypatch.setattr(vectors, "GROUP", 2)


def on_disk(rows: np.ndarray, *, sparse: bool) -> DiskVectors:
    """Writes the rows in blocks of 4."""
    blocks = Blocks(Cache("vectors", keep=9).entry(sparse=sparse))
    for number in range(block_count(len(rows))):
        part = rows[number * 4 : number * 4 + 4]
        blocks.put(number, **(csr_arrays(csr_matrix(part)) if sparse else {"vectors": part}))
    return DiskVectors(blocks, len(rows))


@pytest.mark.parametrize("search_dense", [search_group, search_group_by_torch])
@pytest.mark.parametrize("kind", ["dense", "sparse", "memory"])
@pytest.mark.parametrize(("documents", "k"), [(19, 5), (19, 40), (8, 3), (1, 2)])
def test_top_k_agrees_with_sorting_all_scores(
    kind: str, documents: int, k: int, search_dense: topk.GroupSearch
) -> None:
    rng = np.random.default_rng(documents + k)
    queries, rows = (rng.integers(-2, 4, (n, 6)).astype(np.float32) for n in (4, documents))  # many ties
    searched: Any = SparseVectors(csr_matrix(rows)) if kind == "memory" else on_disk(rows, sparse=kind == "sparse")
    asked: Any = queries if kind == "dense" else csr_matrix(queries)
    excluded = IndexPairs(np.array([0, 2, 2]), np.minimum(np.array([0, 3, documents - 1]), documents - 1))
    hits = top_k(asked, searched, k, excluded, search_dense=search_dense)
    scores = queries @ rows.T
    assert hits.excluded_P.tolist() == scores[excluded].tolist()
    scores[excluded] = -np.inf
    if kind != "dense":
        scores[scores <= 0] = -np.inf
    expected = np.sort(scores, axis=1)[:, ::-1][:, :k]
    np.testing.assert_array_equal(hits.scores_BK, expected)
    for query in range(4):
        index = hits.index_BK[query][np.isfinite(expected[query])]
        assert len(set(index.tolist())) == len(index)
        assert scores[query, index].tolist() == expected[query][: len(index)].tolist()
        assert (hits.index_BK[query][len(index) :] == -1).all()


@pytest.mark.gpu
def test_search_on_the_gpu_agrees_with_numpy() -> None:
    rng = np.random.default_rng(0)
    queries, rows = (rng.integers(-3, 4, (n, 64)).astype(np.float32) for n in (300, 5_000))  # exact in float32
    excluded = IndexPairs(np.arange(300), np.arange(300))
    (scores, index, own), (_, _, expected_own) = (
        search(queries, rows, excluded, 20) for search in (search_group_by_torch, search_group)
    )
    products = queries @ rows.T
    products[excluded] = -np.inf
    assert np.array_equal(own, expected_own)
    assert np.array_equal(np.sort(scores, axis=1), np.sort(products, axis=1)[:, -20:])
    assert np.array_equal(np.take_along_axis(products, index, 1), scores)


@pytest.mark.parametrize("sparse", [False, True])
def test_pair_scores_are_inner_products(sparse: bool) -> None:
    rng = np.random.default_rng(0)
    queries, rows = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=(19, 6)).astype(np.float32)
    pairs = IndexPairs(rng.integers(0, 4, 30), rng.integers(0, 19, 30))
    asked: Any = csr_matrix(queries) if sparse else queries
    scores = pair_scores(asked, on_disk(rows, sparse=sparse), pairs)
    np.testing.assert_allclose(scores, (queries @ rows.T)[pairs], rtol=1e-5)
