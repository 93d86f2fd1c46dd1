from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.detection import auroc, false_positive_rate

scores = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@given(scores, scores)
def test_auroc_is_the_share_of_ordered_pairs(positive: list[int], negative: list[int]) -> None:
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(np.array(positive), np.array(negative)) == pytest.approx(np.mean(wins))


@given(scores, scores)
def test_false_positive_rate_is_the_best_over_all_thresholds(positive: list[int], negative: list[int]) -> None:
    p, n = np.array(positive), np.array(negative)
    reference = min(float((n >= cut).mean()) for cut in p if (p >= cut).mean() >= 0.95)
    assert false_positive_rate(p, n) == pytest.approx(reference)


def test_one_empty_side() -> None:
    with pytest.raises(SpectraError, match="each side"):
        auroc(np.array([1.0]), np.array([]))
