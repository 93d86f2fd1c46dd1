from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from spectra_nsa.metrics.sparse import (
    active_dims,
    document_frequencies,
    flops,
    postings_visited,
    quantiles,
    top_share,
)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 12), st.integers(0, 99))
def test_counts_agree_with_loops(q: int, n: int, v: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = [rng.normal(size=(rows, v)) * (rng.random((rows, v)) < 0.3) for rows in (q, n)]
    queries, documents = map(csr_matrix, dense)
    if queries.nnz:  # a stored zero is no entry
        dense[0][queries.nonzero()[0][0], queries.nonzero()[1][0]] = 0
        queries.data[0] = 0
    frequencies = [sum(dense[1][d, t] != 0 for d in range(n)) for t in range(v)]
    assert document_frequencies(documents).tolist() == frequencies
    assert active_dims(queries).tolist() == [sum(value != 0 for value in row) for row in dense[0]]
    visited = [sum(frequencies[t] for t in range(v) if row[t] != 0) for row in dense[0]]
    assert postings_visited(queries, documents).tolist() == visited
    shared = [[sum(a != 0 and b != 0 for a, b in zip(x, y, strict=True)) for y in dense[1]] for x in dense[0]]
    np.testing.assert_allclose(flops(queries, documents), np.mean(shared, axis=1))


def test_flops_are_those_of_sentence_transformers() -> None:
    import torch
    from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

    rng = np.random.default_rng(0)
    dense = [(rng.random((rows, 20)) < 0.2).astype(np.float32) for rows in (5, 8)]
    evaluator = SparseInformationRetrievalEvaluator({"q": "a"}, {"d": "a"}, {"q": {"d"}})
    for side, rows in zip(("query", "corpus"), dense, strict=True):
        evaluator.count_vectors[side], evaluator.count_lengths[side] = torch.tensor(rows.sum(axis=0)), [len(rows)]
    ours = flops(*map(csr_matrix, dense)).mean()
    assert ours == pytest.approx(evaluator._calculate_avg_flops())


def test_shares_and_quantiles() -> None:
    frequencies = np.array([1, 7, 2, 0])
    assert top_share(frequencies, 1) == 0.7 and top_share(frequencies, 9) == 1 and top_share(np.zeros(3), 2) == 0
    found = quantiles(np.arange(101))
    assert found == {"p0": 0, "p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "p100": 100}
