"""Each term against its definition, and that it pulls the right way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from spectra_nsa.losses import terms


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_triplet_is_zero_beyond_the_margin() -> None:
    a = torch.eye(4)[:2]
    assert terms.triplet(a, a, [torch.eye(4)[2:]], 0.2) == 0
    assert terms.triplet(a, a, [a], 0.3) == pytest.approx(0.3)


def test_cosent_and_angle_count_each_pair_of_rows_in_the_wrong_order() -> None:
    one, other, scores = unit(4, 8), unit(4, 8, seed=1), torch.tensor([0.2, 0.9, 0.2, 0.5])
    cosines = (one * other).sum(-1)
    halves = [torch.complex(*vectors.chunk(2, dim=1)) for vectors in (one, other)]
    lengths = [half.abs().square().sum(1, keepdim=True).sqrt() for half in halves]
    quotient = halves[0] * halves[1].conj() / (lengths[0] * lengths[1])
    angles = (quotient.real.sum(1) + quotient.imag.sum(1)).abs()
    for term, values in ((terms.cosent, cosines), (terms.angle, angles)):
        wrong = [(i, j) for i in range(4) for j in range(4) if scores[i] > scores[j]]
        wanted = sum(math.exp((values[j] - values[i]) / 0.1) for i, j in wrong)
        assert float(term(one, other, scores, 0.1)) == pytest.approx(math.log(1 + wanted), rel=1e-4)


def test_angle_takes_an_odd_width() -> None:
    one, other, scores = unit(4, 9), unit(4, 9, seed=1), torch.tensor([0.2, 0.9, 0.2, 0.5])
    assert terms.angle(one, other, scores, 0.1) == terms.angle(one[:, :8], other[:, :8], scores, 0.1)


def test_cosine_and_contrastive() -> None:
    a, b = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    assert float(terms.cosine(a, b, torch.tensor([1.0, 0.5, 0.0]))) == pytest.approx((0 + 0.25 + 1) / 3)
    assert float(terms.contrastive(a, b, torch.tensor([1.0, 0.0, 0.0]), 0.4)) == pytest.approx(0.5 * 0.4**2 / 3)
    assert float(terms.contrastive(a, b, torch.tensor([1.0, 1.0, 1.0]), 0.4)) == pytest.approx(0.5 / 3)


def test_ranking_is_the_cross_entropy_over_positives_and_negatives() -> None:
    a, p, n = unit(3, 8), unit(3, 8, seed=1), unit(3, 8, seed=2)
    wanted = 0.0
    for i in range(3):
        scores = [float(a[i] @ c) / 0.1 for c in [*p, *n]]
        wanted += math.log(sum(math.exp(s) for s in scores)) - scores[i]
    assert float(terms.ranking(a, p, [n], 0.1)) == pytest.approx(wanted / 3, rel=1e-5)


def test_matryoshka_angular_is_zero_where_prefixes_agree() -> None:
    z = unit(6, 16)
    agreeing = F.normalize(torch.cat([z, torch.zeros_like(z)], dim=1), dim=-1)
    assert terms.matryoshka_angular(agreeing, [32, 16]) < 1e-12 < terms.matryoshka_angular(z, [16, 4])


def test_anchor_is_the_spectral_contrastive_loss_at_nested_prefixes() -> None:
    a, p = torch.randn(5, 64), torch.randn(5, 64)
    wanted = 0.0
    for m in terms.ANCHOR_PREFIXES:
        own = sum(float(a[i, :m] @ p[i, :m]) for i in range(5)) / 5
        cross = [float(a[i, :m] @ p[j, :m]) ** 2 for i in range(5) for j in range(5) if i != j]
        wanted += -2 * own + sum(cross) / len(cross)
    assert float(terms.anchor(a, p)) == pytest.approx(wanted / len(terms.ANCHOR_PREFIXES), rel=1e-4)


def test_entity_is_the_mean_of_ranking_over_normalised_prefixes() -> None:
    columns = [unit(5, 16), unit(5, 16, seed=1), unit(5, 16, seed=2)]
    short = [F.normalize(column[:, :8], dim=-1) for column in columns]
    wanted = (terms.ranking(*columns[:2], columns[2:], 0.1) + terms.ranking(*short[:2], short[2:], 0.1)) / 2
    assert float(terms.entity(columns, 0.1, [16, 8])) == pytest.approx(float(wanted))


@pytest.mark.parametrize("term", ["fast", "entity", "anomaly", "spectral", "anchor"])
def test_descent_lowers_the_term_and_what_it_stands_for(term: str) -> None:
    teacher = unit(24, 16)
    torch.manual_seed(1)
    weights = torch.randn(24, 256, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)

    def value() -> torch.Tensor:
        if term == "fast":
            return terms.fast(weights, torch.zeros(3), teacher, 1.0)
        if term == "entity":
            return terms.entity([weights[:12, :32], weights[12:, :32]], 0.1, [32, 16])
        if term == "anomaly":
            return terms.anomaly(teacher, weights[:4, :16], 10.0)
        if term == "spectral":
            return terms.spectral(F.normalize(weights, dim=-1))
        return terms.anchor(0.1 * weights[:12, :64], 0.1 * weights[12:, :64])

    before = float(value())
    for _ in range(60):
        optimizer.zero_grad()
        loss = value()
        loss.backward()
        optimizer.step()
    assert float(value()) < before - 0.01
    if term == "anomaly":
        near = (teacher @ F.normalize(weights[:4, :16], dim=-1).T).amax(1).mean()
        assert near > 0.3, "prototypes have gone where the texts are"
