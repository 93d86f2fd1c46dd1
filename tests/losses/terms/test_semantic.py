"""InfoNCE against its definition in float64."""

from __future__ import annotations

import pytest
import torch

from spectra_nsa.losses.terms import TERMS, TermBatch
from spectra_nsa.losses.terms.semantic import info_nce
from tests.losses.terms.vectors import unit


@pytest.mark.parametrize("both", [False, True])
def test_info_nce_is_the_cross_entropy_over_all_candidates(both: bool) -> None:
    a, p, n = unit(5, 8), unit(5, 8, seed=1), unit(5, 8, seed=2)
    scores = a.double() @ torch.cat([p, n]).double().T / 0.1
    wanted = (scores.logsumexp(1) - scores.diagonal()).mean()
    if both:
        back = scores[:, :5].T
        wanted = (wanted + (back.logsumexp(1) - back.diagonal()).mean()) / 2
    assert float(info_nce(a, p, n, temperature=0.1, both_directions=both)) == pytest.approx(float(wanted), rel=1e-5)


def test_the_term_is_the_mean_over_sizes() -> None:
    outputs = [{"embedding": 3 * unit(4, 16)}, {"embedding": unit(4, 16, seed=1)}]
    batch = TermBatch(outputs=outputs, sizes=[16, 8], temperature=0.2, both_directions=False)
    found = TERMS["semantic"].values(batch)
    assert list(found) == ["semantic_16", "semantic_8"]
    for size in (16, 8):
        columns = [column["embedding"][:, :size] for column in outputs]
        wanted = info_nce(*columns, temperature=0.2, both_directions=False) / 2
        assert float(found[f"semantic_{size}"]) == pytest.approx(float(wanted))
