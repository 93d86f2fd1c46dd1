from __future__ import annotations

import numpy as np

from spectra_nsa.metrics.hashing import candidate_ranks, candidate_recall


def test_ranks_are_those_of_a_stable_sort() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 6, (300, 40)).astype(np.float32)  # many ties, more queries than a block
    wanted = generator.permuted(np.tile(np.arange(40), (300, 1)), axis=1)[:, :5]
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = [[list(row).index(document) for document in ids] for row, ids in zip(order, wanted, strict=True)]
    assert np.array_equal(candidate_ranks(wanted, scores), expected)


def test_recall_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0.5, 0.4], [0.0, 0.2, 0.2, 0.1]])
    assert candidate_recall(np.array([[0, 3], [1, 0]]), scores, [1, 2, 3]) == {1: 0.5, 2: 0.5, 3: 0.75}
