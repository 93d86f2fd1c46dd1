from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.pairs import draw_negatives, pair_check


def test_perfect_reversed_and_tied() -> None:
    eye = np.eye(3)
    good = pair_check(eye, eye)
    assert good.closer.mean() == 1 and good.auroc == 1
    assert good.positive.mean() == 1 and good.negative.mean() == 0
    bad = pair_check(eye, np.roll(eye, 1, axis=0), negatives=np.array([1, 2, 0]))
    assert bad.closer.mean() == 0 and bad.auroc == 0
    assert pair_check(eye, np.ones((3, 3))).closer.mean() == 0.5


@given(st.lists(st.integers(0, 3), max_size=30))
def test_negatives_differ(keys: list[int]) -> None:
    rows = draw_negatives(keys)
    assert all(keys[row] != key for key, row in zip(keys, rows, strict=True) if row >= 0)
    if len(set(keys)) == 1:
        assert (rows == -1).all()


def test_one_pair_is_refused() -> None:
    with pytest.raises(SpectraError, match="two pairs"):
        pair_check(np.eye(1), np.eye(1))
    with pytest.raises(SpectraError, match="different positives"):
        pair_check(np.eye(2), np.eye(2), negatives=draw_negatives(["same", "same"]))
