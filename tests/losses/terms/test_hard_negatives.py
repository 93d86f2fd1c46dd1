"""The terms of hard negatives against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from spectra_nsa.losses.terms import hard_negatives
from tests.losses.terms.vectors import unit


def test_triplet_is_zero_beyond_the_margin() -> None:
    a = torch.eye(4)[:2]
    assert hard_negatives.triplet(a, a, [torch.eye(4)[2:]], 0.2) == 0
    assert hard_negatives.triplet(a, a, [a], 0.3) == pytest.approx(0.3)


def test_ranking_is_the_cross_entropy_over_positives_and_negatives() -> None:
    a, p, n = unit(3, 8), unit(3, 8, seed=1), unit(3, 8, seed=2)
    wanted = 0.0
    for i in range(3):
        scores = [float(a[i] @ c) / 0.1 for c in [*p, *n]]
        wanted += math.log(sum(math.exp(s) for s in scores)) - scores[i]
    assert float(hard_negatives.ranking(a, p, [n], 0.1)) == pytest.approx(wanted / 3, rel=1e-5)
