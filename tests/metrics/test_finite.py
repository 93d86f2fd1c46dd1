"""The check for NaN and infinity says whose vectors and how many."""

from __future__ import annotations

import numpy as np
import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.finite import check_finite


def test_the_error_counts_the_vectors() -> None:
    vectors = np.ones((1_200, 4), dtype=np.float32)
    check_finite(vectors, "org/model")
    check_finite(vectors[:0], "org/model")
    vectors[3, 1], vectors[3, 2], vectors[5, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(SpectraError, match=r"^org/model: 2 of 1,200 vectors hold NaN or infinity"):
        check_finite(vectors, "org/model")
    with pytest.raises(SpectraError, match=r"^judge: 1 of 2 scores hold"):
        check_finite(np.array([0.5, np.nan]), "judge", "scores")
