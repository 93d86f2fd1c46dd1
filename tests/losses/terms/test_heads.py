"""The terms of the heads against their definitions, and that descent lowers each."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spectra_nsa.losses.terms import geometry, heads
from spectra_nsa.losses.terms.hard_negatives import ranking
from tests.losses.terms.vectors import unit


def test_anchor_is_the_spectral_contrastive_loss_at_nested_prefixes() -> None:
    a, p = torch.randn(5, 64), torch.randn(5, 64)
    wanted = 0.0
    for m in heads.ANCHOR_PREFIXES:
        own = sum(float(a[i, :m] @ p[i, :m]) for i in range(5)) / 5
        cross = [float(a[i, :m] @ p[j, :m]) ** 2 for i in range(5) for j in range(5) if i != j]
        wanted += -2 * own + sum(cross) / len(cross)
    assert float(heads.anchor(a, p)) == pytest.approx(wanted / len(heads.ANCHOR_PREFIXES), rel=1e-4)


def test_entity_is_the_mean_of_ranking_over_normalised_prefixes() -> None:
    columns = [unit(5, 16), unit(5, 16, seed=1), unit(5, 16, seed=2)]
    short = [F.normalize(column[:, :8], dim=-1) for column in columns]
    wanted = (ranking(*columns[:2], columns[2:], 0.1) + ranking(*short[:2], short[2:], 0.1)) / 2
    assert float(heads.entity(columns, 0.1, [16, 8])) == pytest.approx(float(wanted))


@pytest.mark.parametrize("term", ["fast", "entity", "anomaly", "spectral", "anchor"])
def test_descent_lowers_the_term(term: str) -> None:
    teacher = unit(24, 16)
    torch.manual_seed(1)
    weights = torch.randn(24, 256, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)

    def value() -> torch.Tensor:
        if term == "fast":
            return heads.fast(weights, torch.zeros(3), teacher, 1.0)
        if term == "entity":
            return heads.entity([weights[:12, :32], weights[12:, :32]], 0.1, [32, 16])
        if term == "anomaly":
            return heads.anomaly(teacher, weights[:4, :16], 10.0)
        if term == "spectral":
            return geometry.spectral(F.normalize(weights, dim=-1))
        return heads.anchor(0.1 * weights[:12, :64], 0.1 * weights[12:, :64])

    before = float(value())
    for _ in range(60):
        optimizer.zero_grad()
        loss = value()
        loss.backward()
        optimizer.step()
    assert float(value()) < before - 0.01
    if term == "anomaly":
        near = (teacher @ F.normalize(weights[:4, :16], dim=-1).T).amax(1).mean()
        assert near > 0.3, "prototypes have moved to the texts"
