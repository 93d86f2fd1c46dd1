"""The rules that select negatives, on scores with an obvious outcome."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_nsa.core.errors import UsageError
from spectra_nsa.workflows.mine.rules import Rules, allowed, chosen, judged

SCORES = np.array([[0.9, 0.7, 0.5, 0.3, -np.inf]], dtype=np.float32)
POSITIVE = np.array([0.8], dtype=np.float32)


def remaining(**rules: Any) -> tuple[list[int], dict[str, int]]:
    """Returns the ranks that the rules allow, and the counts of dropped candidates."""
    dropped: Counter[str] = Counter()
    allowed_QK = allowed(Rules(**rules), SCORES, POSITIVE, dropped)
    return np.flatnonzero(allowed_QK[0]).tolist(), dict(+dropped)


@pytest.mark.parametrize(
    ("rules", "ranks", "dropped"),
    [
        ({}, [0, 1, 2, 3], {}),
        ({"range_min": 2}, [2, 3], {}),
        ({"margin": 0.0}, [1, 2, 3], {"margin": 1}),
        ({"margin": 0.2}, [2, 3], {"margin": 2}),
        ({"relative_margin": 0.05}, [1, 2, 3], {"relative_margin": 1}),  # 0.7 ≤ 0.95 × 0.8 = 0.76
        ({"relative_margin": 0.2}, [2, 3], {"relative_margin": 2}),  # 0.7 > 0.8 × 0.8 = 0.64
        ({"max_score": 0.5}, [2, 3], {"max_score": 2}),
        ({"min_score": 0.5}, [0, 1, 2], {"min_score": 1}),
        ({"range_min": 1, "margin": 0.0, "max_score": 0.6}, [2, 3], {"max_score": 1}),
    ],
)
def test_each_rule(rules: dict[str, Any], ranks: list[int], dropped: dict[str, int]) -> None:
    assert remaining(**rules) == (ranks, dropped)


def test_a_share_of_a_negative_score_lies_below_it() -> None:
    """The positive scores −0.1: at 0.9 of it, a negative may score −0.11 but not −0.09."""
    scores = np.array([[-0.09, -0.105, -0.12]], dtype=np.float32)
    found = allowed(Rules(relative_margin=0.1), scores, np.array([-0.1], dtype=np.float32), Counter())
    assert found.tolist() == [[False, False, True]]


def test_the_judge_drops_candidates_it_prefers_to_the_positive() -> None:
    open_QK, dropped = np.ones((1, 3), dtype=bool), Counter[str]()
    scores = np.array([[0.6, 0.5, 0.3]], dtype=np.float32)
    judged(Rules(judge_ratio=0.8), open_QK, scores, np.array([0.5], dtype=np.float32), dropped)
    assert open_QK.tolist() == [[False, False, True]] and dropped["judge"] == 2


def no_duplicates(query: np.ndarray, rank: np.ndarray) -> np.ndarray:
    return np.zeros(len(query), dtype=bool)


def test_duplicates_are_skipped_and_only_checked_if_they_would_be_selected() -> None:
    checked: list[tuple[int, int]] = []

    def same(query: np.ndarray, rank: np.ndarray) -> np.ndarray:
        checked.extend(zip(query.tolist(), rank.tolist(), strict=True))
        return (query == 0) & (rank < 2)

    dropped: Counter[str] = Counter()
    found = chosen(Rules(negatives=2, range_max=5), np.ones((2, 5), dtype=bool), 0, same, dropped)
    assert found.tolist() == [[2, 3], [0, 1]]
    assert dropped["duplicate"] == 2
    assert sorted(checked) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]


def test_missing_negatives_are_gaps_at_the_end() -> None:
    open_QK = np.array([[False, True, False, False]])
    assert chosen(Rules(negatives=3, range_max=4), open_QK, 0, no_duplicates, Counter()).tolist() == [[1, -1, -1]]


def test_random_sampling_is_seeded_for_each_anchor() -> None:
    open_QK = np.ones((200, 20), dtype=bool)
    rules = Rules(negatives=2, range_max=20, sampling="random", seed=3)
    found = chosen(rules, open_QK, 0, no_duplicates, Counter())
    assert np.array_equal(found, chosen(rules, open_QK, 0, no_duplicates, Counter()))
    assert np.array_equal(found[100:], chosen(rules, open_QK[100:], 100, no_duplicates, Counter())), (
        "the result does not depend on the blocks"
    )
    assert not np.array_equal(found, chosen(Rules(**{**vars(rules), "seed": 4}), open_QK, 0, no_duplicates, Counter()))
    assert (found[:, 0] < found[:, 1]).all(), "best first"
    counts = np.bincount(found.ravel(), minlength=20)  # 20 each are expected
    assert counts.min() > 5 and counts.max() < 45


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(["top", "random"]))
def test_selected_candidates_are_allowed_and_as_many_as_possible(seed: int, count: int, sampling: Any) -> None:
    rng = np.random.default_rng(seed)
    open_QK, copies = rng.random((6, 8)) < 0.6, rng.random((6, 8)) < 0.4
    rules = Rules(negatives=count, range_max=8, sampling=sampling, seed=seed)
    found = chosen(rules, open_QK.copy(), 0, lambda query, rank: copies[query, rank], Counter())
    for row, good in zip(found, open_QK & ~copies, strict=True):
        selected = row[row >= 0]
        assert len(set(selected.tolist())) == len(selected) == min(count, good.sum())
        assert good[selected].all()
        if sampling == "top":
            assert selected.tolist() == np.flatnonzero(good)[:count].tolist()


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"negatives": 0}, "from 1 to 8"),
        ({"negatives": 9}, "from 1 to 8"),
        ({"range_min": -1}, "increase --range-max"),
        ({"range_min": 5, "range_max": 5}, "increase --range-max"),
        ({"negatives": 3, "range_max": 2}, "fewer than 3"),
        ({"relative_margin": 1.0}, "below 1"),
        ({"relative_margin": -0.1}, "at least 0"),
        ({"margin": -0.1}, "negative"),
        ({"judge_ratio": 0.0}, "above 0"),
        ({"sampling": "topp"}, "Did you mean 'top'"),
    ],
)
def test_rules_out_of_range_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Rules(**rules)
