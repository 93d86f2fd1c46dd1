"""The terms of scored pairs against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from spectra_nsa.losses.terms import scored_pairs
from tests.losses.terms.vectors import unit


def test_cosent_and_angle_count_each_pair_of_rows_in_the_wrong_order() -> None:
    first, second, scores = unit(4, 8), unit(4, 8, seed=1), torch.tensor([0.2, 0.9, 0.2, 0.5])
    cosines = (first * second).sum(-1)
    halves = [torch.complex(*vectors.chunk(2, dim=1)) for vectors in (first, second)]
    lengths = [half.abs().square().sum(1, keepdim=True).sqrt() for half in halves]
    quotient = halves[0] * halves[1].conj() / (lengths[0] * lengths[1])
    angles = (quotient.real.sum(1) + quotient.imag.sum(1)).abs()
    for term, values in ((scored_pairs.cosent, cosines), (scored_pairs.angle, angles)):
        wrong = [(i, j) for i in range(4) for j in range(4) if scores[i] > scores[j]]
        wanted = sum(math.exp((values[j] - values[i]) / 0.1) for i, j in wrong)
        assert float(term(first, second, scores, 0.1)) == pytest.approx(math.log(1 + wanted), rel=1e-4)


def test_angle_takes_an_odd_width() -> None:
    first, second, scores = unit(4, 9), unit(4, 9, seed=1), torch.tensor([0.2, 0.9, 0.2, 0.5])
    assert scored_pairs.angle(first, second, scores, 0.1) == scored_pairs.angle(
        first[:, :8], second[:, :8], scores, 0.1
    )


def test_cosine_and_contrastive() -> None:
    a, b = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    assert float(scored_pairs.cosine(a, b, torch.tensor([1.0, 0.5, 0.0]))) == pytest.approx((0 + 0.25 + 1) / 3)
    assert float(scored_pairs.contrastive(a, b, torch.tensor([1.0, 0.0, 0.0]), 0.4)) == pytest.approx(0.5 * 0.4**2 / 3)
    assert float(scored_pairs.contrastive(a, b, torch.tensor([1.0, 1.0, 1.0]), 0.4)) == pytest.approx(0.5 / 3)
