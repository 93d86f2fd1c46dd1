"""Regularizers of sparse vectors against the library's and float64 formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sentence_transformers.sparse_encoder import losses

from spectra_nsa.losses.terms import TERMS, TermBatch
from spectra_nsa.losses.terms.sparsity import CUTOFF, df_flops, flops, frequency_weight, l1
from tests.losses.terms.test_sparse_ranking import COLUMNS


def value(name: str, **more: Any) -> float:
    found = TERMS[name].compute(TermBatch(outputs=[{"sparse": column} for column in COLUMNS[:3]], **more))
    assert isinstance(found, torch.Tensor)
    return float(found)


@pytest.mark.parametrize("threshold", [None, 14])
def test_flops_are_the_librarys_for_each_side(threshold: int | None) -> None:
    stock: Any = losses.FlopsLoss(None, threshold)  # type: ignore[arg-type]
    sizes = (torch.cat(COLUMNS[1:3]) > 0).sum(1)
    assert threshold is None or 0 < (sizes > threshold).sum() < len(sizes), "the threshold tells texts apart"
    for name, texts in (("query_flops", COLUMNS[0]), ("document_flops", torch.cat(COLUMNS[1:3]))):
        assert value(name, threshold=threshold) == pytest.approx(float(stock.compute_loss_from_embeddings(texts)))


def test_splade_loss_is_the_sum_of_these_terms() -> None:
    stock: Any = losses.SpladeLoss(
        None,  # type: ignore[arg-type]
        losses.SparseMultipleNegativesRankingLoss(None, scale=1.0),  # type: ignore[arg-type]
        document_regularizer_weight=3e-4,
        query_regularizer_weight=5e-4,
    )
    ranked = stock.loss.compute_loss_from_embeddings(COLUMNS[:3], torch.empty(0))
    document = 3e-4 * stock.document_regularizer.compute_loss_from_embeddings(torch.cat(COLUMNS[1:3]))
    query = 5e-4 * stock.query_regularizer.compute_loss_from_embeddings(COLUMNS[0])
    ours = (
        value("sparse_semantic", both_directions=False) + 3e-4 * value("document_flops") + 5e-4 * value("query_flops")
    )
    assert ours == pytest.approx(float(ranked + document + query), rel=1e-5)


def test_l1_and_df_flops_by_their_formulas() -> None:
    texts = COLUMNS[0].double()
    assert float(l1(COLUMNS[0])) == pytest.approx(sum(float(row.sum()) for row in texts) / 4, rel=1e-6)
    frequency = torch.linspace(0, 1, 30)
    weights = frequency_weight(frequency)
    wanted = sum(float(w) * float(column.mean()) ** 2 for w, column in zip(weights, texts.T, strict=True))
    assert float(df_flops(COLUMNS[0], frequency)) == pytest.approx(wanted, rel=1e-5)
    assert float(df_flops(COLUMNS[0], torch.ones(30))) == pytest.approx(float(flops(COLUMNS[0])), rel=1e-6)
    own = (COLUMNS[0] > 0).float().mean(0)
    assert value("query_df_flops") == pytest.approx(float(df_flops(COLUMNS[0], own)))
    assert value("query_df_flops", frequencies={"query": torch.zeros(30)}) == pytest.approx(0, abs=1e-9)


def test_the_weight_by_frequency_is_steep_around_its_cutoff() -> None:
    weights = frequency_weight(torch.tensor([0.0, CUTOFF / 4, CUTOFF, 4 * CUTOFF, 1.0]))
    assert weights[0] < 1e-6 and weights[1] < 0.1 and weights[2] == pytest.approx(0.5, abs=1e-4)
    assert weights[3] > 0.99 and weights[4] == 1.0
