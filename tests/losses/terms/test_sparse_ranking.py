"""Ranking terms of sparse vectors against the library's losses and float64 formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sentence_transformers.sparse_encoder import losses

from spectra_nsa.config.terms import MARGIN_SCORES, TEACHER_VECTORS
from spectra_nsa.losses.terms import TERMS, TermBatch
from spectra_nsa.losses.terms.sparse_ranking import info_nce, kl, margin_mse, own_scores, unit_range
from tests.losses.terms.vectors import unit

STOCK: Any = None  # the library's losses take a model that they do not use here


def vectors(rows: int = 4, seed: int = 0, size: int = 30) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)).relu().log1p()


COLUMNS = [vectors(seed=seed) for seed in range(4)]


def batch_of(inputs: list[dict[str, torch.Tensor]], **more: Any) -> TermBatch:
    return TermBatch(outputs=[{"sparse": column} for column in COLUMNS[: len(inputs)]], inputs=inputs, **more)


@pytest.mark.parametrize("both", [False, True])
def test_info_nce_is_the_librarys(both: bool) -> None:
    directions = ("query_to_doc", "doc_to_query") if both else ("query_to_doc",)
    stock: Any = losses.SparseMultipleNegativesRankingLoss
    loss = stock(STOCK, scale=2.0, directions=directions, partition_mode="per_direction")
    wanted = loss.compute_loss_from_embeddings(COLUMNS, torch.empty(0))
    assert float(info_nce(COLUMNS, 2.0, both_directions=both)) == pytest.approx(float(wanted), rel=1e-5)


def test_margins_and_kl_are_the_librarys() -> None:
    scores = torch.rand(4, 3, generator=torch.Generator().manual_seed(7))
    student = torch.stack([(COLUMNS[0] * other).sum(1) for other in COLUMNS[1:]], dim=1)
    margins: Any = losses.SparseMarginMSELoss(STOCK)
    divergence: Any = losses.SparseDistillKLDivLoss(STOCK, temperature=1.0)
    assert float(margin_mse(student, scores)) == pytest.approx(
        float(margins.compute_loss_from_embeddings(COLUMNS, scores)), rel=1e-5
    )
    assert float(kl(student, scores)) == pytest.approx(
        float(divergence.compute_loss_from_embeddings(COLUMNS, scores)), rel=1e-4
    )
    everything = COLUMNS[0] @ torch.cat(COLUMNS[1:]).T
    torch.testing.assert_close(own_scores(everything), student)


def test_kl_covers_the_batchs_documents_and_sums_normalized_teachers() -> None:
    teacher = [unit(4, 5, seed=place) for place in range(2)], [3 * unit(4, 7, seed=9 + place) for place in range(2)]
    inputs = [{TEACHER_VECTORS: torch.cat([one, other], 1)} for one, other in zip(*teacher, strict=True)]
    found = TERMS["sparse_kl"].compute(batch_of(inputs, teachers=((5, 0.25), (7, 0.75)), teacher_scale=8.0, scale=1.5))
    total = 0.0
    for row in range(4):
        target = [0.0] * 4
        for (queries, documents), weight in zip(teacher, (0.25, 0.75), strict=True):
            cosines = [
                float(torch.cosine_similarity(queries[row].double(), document.double(), dim=0))
                for document in documents
            ]
            low, high = min(cosines), max(cosines)
            target = [t + weight * 8 * (c - low) / (high - low) for t, c in zip(target, cosines, strict=True)]
        ours = [1.5 * float(COLUMNS[0][row].double() @ document.double()) for document in COLUMNS[1]]
        p, q = ([math.exp(v) / sum(map(math.exp, values)) for v in values] for values in (target, ours))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert isinstance(found, torch.Tensor) and float(found) == pytest.approx(total / 4, rel=1e-4)


def test_given_scores_of_plain_pairs_leave_kl_to_the_teachers() -> None:
    inputs = [{TEACHER_VECTORS: unit(4, 5, seed=place)} for place in range(2)]
    wanted = TERMS["sparse_kl"].compute(batch_of(inputs))
    inputs[1][MARGIN_SCORES] = torch.rand(4)
    found = TERMS["sparse_kl"].compute(batch_of(inputs))
    assert isinstance(found, torch.Tensor) and isinstance(wanted, torch.Tensor) and torch.equal(found, wanted)


def test_equal_scores_have_a_range_too() -> None:
    assert torch.equal(unit_range(torch.ones(2, 3), dim=1), torch.zeros(2, 3))
    assert unit_range(torch.tensor([[0.0, 5.0], [10.0, 2.0]])).flatten().tolist() == [0.0, 0.5, 1.0, pytest.approx(0.2)]
