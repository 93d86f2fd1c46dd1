"""Search in blocks against sorting everything, and the blocks on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spectra_nsa.core.cache import Cache
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.index import topk
from spectra_nsa.index.blocks import Blocks
from spectra_nsa.index.topk import Matrix, Own, Vectors, pack, pair_scores, top_k


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(topk, "ROWS", 4)
    monkeypatch.setattr(topk, "GROUP", 2)


def stored(rows: np.ndarray, name: str, *, sparse: bool) -> Vectors | Matrix:
    """The rows in blocks of 4."""
    blocks = Blocks(Cache("vectors", keep=9).entry(name=name))
    for number in range(topk.blocks_of(len(rows))):
        part = rows[number * 4 : number * 4 + 4]
        blocks.put(number, **(pack(csr_matrix(part)) if sparse else {"vectors": part}))
    return Vectors(blocks, len(rows))


@pytest.mark.parametrize("kind", ["dense", "sparse", "matrix"])
@pytest.mark.parametrize(("documents", "k"), [(19, 5), (19, 40), (8, 3), (1, 2)])
def test_the_running_top_k_is_that_of_sorting_everything(kind: str, documents: int, k: int) -> None:
    rng = np.random.default_rng(documents + k)
    queries, rows = (rng.integers(-2, 4, (n, 6)).astype(np.float32) for n in (4, documents))  # many ties
    found_in: Any = stored(rows, "d", sparse=kind == "sparse") if kind != "matrix" else Matrix(csr_matrix(rows))
    asked: Any = queries if kind == "dense" else csr_matrix(queries)
    own = Own(np.array([0, 2, 2]), np.minimum(np.array([0, 3, documents - 1]), documents - 1))
    got = top_k(asked, found_in, k, own)
    scores = queries @ rows.T
    assert got.own_P.tolist() == scores[own.query_P, own.document_P].tolist()
    scores[own.query_P, own.document_P] = -np.inf
    if kind != "dense":
        scores[scores <= 0] = -np.inf
    wanted = np.sort(scores, axis=1)[:, ::-1][:, :k]
    np.testing.assert_array_equal(got.scores_BK, wanted)
    for query in range(4):
        hits = got.index_BK[query][np.isfinite(wanted[query])]
        assert len(set(hits.tolist())) == len(hits)
        assert scores[query, hits].tolist() == wanted[query][: len(hits)].tolist()
        assert (got.index_BK[query][len(hits) :] == -1).all()


@pytest.mark.parametrize("sparse", [False, True])
def test_scores_of_pairs(sparse: bool) -> None:
    rng = np.random.default_rng(0)
    queries, rows = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=(19, 6)).astype(np.float32)
    pairs = Own(rng.integers(0, 4, 30), rng.integers(0, 19, 30))
    asked: Any = csr_matrix(queries) if sparse else queries
    got = pair_scores(asked, stored(rows, "d", sparse=sparse), pairs)
    np.testing.assert_allclose(got, (queries @ rows.T)[pairs.query_P, pairs.document_P], rtol=1e-5)


def test_a_damaged_block_counts_as_missing(tmp_path: Path) -> None:
    blocks = Blocks(Cache("kind", keep=2).entry(name="key"))
    for number in range(3):
        blocks.put(number, values=np.arange(100) + number)
    (middle,) = blocks.folder.glob("*1.npz")
    data = bytearray(middle.read_bytes())
    data[len(data) // 2] ^= 255
    middle.write_bytes(data)
    assert blocks.missing(4) == [1, 3]
    assert Blocks(Cache("kind", keep=2).entry(name="key")).get(2)["values"][0] == 2  # type: ignore[index]


def test_a_full_disk_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(SpectraError, match="XDG_CACHE_HOME"):
        Blocks(Cache("kind", keep=2).entry(name="key")).put(0, values=np.zeros(1))
