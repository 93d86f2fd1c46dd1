from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spectra_nsa.index.sparse.index import SparseIndex


def random_rows(count: int, width: int = 60, *, seed: int = 0, active: float = 0.1) -> Any:
    """Returns rows whose weights are multiples of 1/4, so that many scores are equal and sums are exact."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((count, width)) < active, rng.integers(1, 9, (count, width)) / 4, 0)
    return csr_matrix(dense.astype(np.float32))


def names(count: int, start: int = 0) -> list[str]:
    return [f"d{number}" for number in range(start, start + count)]


def brute_force(queries: Any, documents: Any, k: int, alive: np.ndarray | None = None) -> list[list[int]]:
    """Returns the hits of each query: descending scores above zero, then position."""
    scores = (queries @ documents.T).toarray()
    allowed = np.ones(documents.shape[0], dtype=bool) if alive is None else alive
    order = np.lexsort((np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores), axis=1)
    return [[int(d) for d in order[q] if scores[q, d] > 0 and allowed[d]][:k] for q in range(len(scores))]


@pytest.fixture
def built(tmp_path: Path) -> tuple[SparseIndex, Any]:
    """An index of 200 documents in several segments, and their rows."""
    rows = random_rows(200)
    index = SparseIndex.build(tmp_path / "index", rows[:120], names(120), texts=[f"text {n}" for n in range(120)])
    for start in range(120, 200, 16):
        ids = names(16, start)
        index.add(rows[start : start + 16], ids, texts=ids, metadata=[{"at": start}] * 16)
    return index, rows
