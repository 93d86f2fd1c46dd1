"""The entity head's weights of tokens, and the projection it is fitted to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from spectra_nsa.heads.entity import EntityHead

H, E, V = 12, 6, 8


@pytest.fixture
def head() -> EntityHead:
    torch.manual_seed(0)
    return EntityHead(H, E, V)


@pytest.fixture
def states() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    spread = torch.linspace(3, 0.2, H)
    return torch.randn(500, H, generator=generator) * spread + 4 * torch.eye(H)[-1]


def test_tokens_weigh_the_root_of_their_idf_and_its_mean_over_running_text(head: EntityHead) -> None:
    documents = torch.tensor([100.0, 50, 10, 1, 0, 0, 0, 0])
    head.prior.fit(documents, 100)
    x, ids, mask = torch.randn(1, 4, H), torch.tensor([[1, 2, 3, 4]]), torch.tensor([[1, 1, 1, 0]])
    roots = torch.log(101 / (1 + documents)).sqrt()
    running = torch.repeat_interleave(roots, documents.long()).mean()
    weights = (roots[ids] + running) * mask
    wanted = (weights[..., None] * x).sum(1) / weights.sum()
    assert torch.allclose(head.pool(x, mask, ids), wanted, atol=1e-6)


def test_unfitted_all_tokens_weigh_alike_and_common_ones_alone_still_do(head: EntityHead) -> None:
    x, mask = torch.randn(1, 3, H), torch.ones(1, 3, dtype=torch.long)
    assert torch.allclose(head.pool(x, mask, torch.tensor([[1, 2, 3]])), x.mean(1), atol=1e-6)
    head.prior.fit(torch.tensor([100.0, *[5.0] * 7]), 100)
    assert torch.allclose(head.pool(x, mask, torch.zeros(1, 3, dtype=torch.long)), x.mean(1), atol=1e-6)


def test_the_fit_evens_the_spread_of_directions_a_little_and_leaves_the_mean_out(
    head: EntityHead, states: torch.Tensor
) -> None:
    head.fit(states)
    weight = head.projection.weight.detach()
    assert torch.allclose(weight @ F.normalize(states.mean(0), dim=0), torch.zeros(E), atol=1e-5)
    assert float(weight.norm()) == pytest.approx(E**0.5, rel=1e-4)
    variances = torch.linalg.eigvalsh(torch.cov(states.T)).flip(0)[:E]
    out = torch.cov((states @ weight.T).T).diagonal()
    assert torch.allclose(out / out[0], (variances / variances[0]) ** 0.8, rtol=0.1)


def test_the_fit_finds_what_the_large_directions_hide(head: EntityHead, states: torch.Tensor) -> None:
    """Two texts that differ in a narrow direction only are told apart better than by cosine."""
    one, other = states[:1], states[:1].clone()
    other[0, 4] += 2
    before = 1 - F.cosine_similarity(one, other)
    head.fit(states)
    assert 1 - F.cosine_similarity(head.projection(one), head.projection(other)) > 1.5 * before


def test_more_outputs_than_directions_or_hardly_any_text() -> None:
    wide = EntityHead(4, 6, V)
    wide.fit(torch.randn(50, 4))
    assert (wide.projection.weight[4:] == 0).all() and (wide.projection.weight[:3].norm(dim=1) > 0).all()
    for rows in (torch.ones(1, 4), torch.full((5, 4), float("nan"))):
        born = wide.projection.weight.clone()
        wide.fit(rows)
        assert torch.equal(wide.projection.weight, born)
