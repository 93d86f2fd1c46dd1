"""The terms of distillation against second formulas, and when they are active."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss, MarginMSELoss
from sentence_transformers.util import pairwise_cos_sim

import spectra_nsa as sp
from spectra_nsa.config.loss_sections import LossSection
from spectra_nsa.config.terms import MARGIN_SCORES, TARGET_VECTORS, TEACHER_VECTORS
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.losses.terms import distillation
from tests.builders import DENSE_TERMS
from tests.losses.terms.vectors import unit

COLUMNS = [["open the file", "close a socket", "sort a list"], ["file open", "socket close", "list sort"],
           ["query a document", "vector of a model", "token"]]  # fmt: skip


def test_embedding_is_the_stock_loss_and_half_the_squared_distance() -> None:
    student, target = 3 * unit(5, 8), unit(5, 8, seed=1)
    found = float(distillation.embedding(student, target))
    stock = EmbedDistillLoss(torch.nn.Identity(), distance_metric="cosine")  # type: ignore[arg-type]
    assert found == pytest.approx(float(stock.compute_loss_from_embeddings([student], [target])), rel=1e-5)
    assert found == pytest.approx(float((unit(5, 8) - target).square().sum(1).mean()) / 2, rel=1e-5)


def test_similarity_is_the_divergence_of_two_distributions_of_other_texts() -> None:
    student, teacher, tau = unit(4, 8), unit(4, 20, seed=1), 0.2
    total = 0.0
    for i in range(4):
        others = [j for j in range(4) if j != i]
        p, q = ([math.exp(float(v[i] @ v[j]) / tau) for j in others] for v in (teacher, student))
        total += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    assert float(distillation.similarity(student, teacher, tau)) == pytest.approx(total / 4, rel=1e-4)
    rotated = teacher @ torch.linalg.qr(torch.randn(20, 20)).Q
    assert float(distillation.similarity(rotated, teacher, tau)) == pytest.approx(0, abs=1e-5)


def test_margins_are_the_stock_loss_of_cosines() -> None:
    columns = [unit(4, 8), unit(4, 8, seed=1), unit(4, 8, seed=2), unit(4, 8, seed=3)]
    scores = torch.rand(4, 3)
    stock = MarginMSELoss(torch.nn.Identity(), similarity_fct=pairwise_cos_sim)  # type: ignore[arg-type]
    wanted = stock.compute_loss_from_embeddings(columns, scores)
    assert float(distillation.margin_mse(columns, scores)) == pytest.approx(float(wanted), rel=1e-5)


@pytest.fixture
def model(make_bert: Callable[..., Path]) -> Any:
    return sp.warm_start(make_bert(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def stack_of(model: Any, **options: Any) -> LossStack:
    every = {name: {"weight": float(bool(facts.learns_from))} for name, facts in DENSE_TERMS.items()}
    section = LossSection.model_validate({"terms": every})
    return LossStack(
        model, section, active=DENSE_TERMS, dense=model.spectra, sizes=[32, 16], distill_temperature=0.1, **options
    )


def features(model: Any, columns: list[list[str]], width: int = 12, **more: torch.Tensor) -> list[dict[str, Any]]:
    return [
        {
            **model.preprocess(column),
            TEACHER_VECTORS: unit(3, width, seed=place),
            TARGET_VECTORS: unit(3, 32, seed=9 + place),
        }
        | {name: value[place] for name, value in more.items() if place}
        for place, column in enumerate(columns)
    ]


def test_the_stack_learns_from_the_inputs_of_the_batch(model: Any) -> None:
    found = stack_of(model)(features(model, COLUMNS))
    assert set(found) == {"distill_embedding", "distill_similarity_32", "distill_similarity_16", "margin_mse"}
    vectors = [torch.tensor(model.encode(column)) for column in COLUMNS]
    teacher = [unit(3, 12, seed=place) for place in range(3)]
    for size in (32, 16):
        wanted = distillation.similarity(torch.cat(vectors)[:, :size], torch.cat(teacher), 0.1) / 2
        assert float(found[f"distill_similarity_{size}"]) == pytest.approx(float(wanted), rel=1e-4)
    wanted = distillation.embedding(torch.cat(vectors), torch.cat([unit(3, 32, seed=9 + place) for place in range(3)]))
    assert float(found["distill_embedding"]) == pytest.approx(float(wanted), rel=1e-4)
    wanted = distillation.margin_mse(vectors, distillation.anchor_cosines(teacher))
    assert float(found["margin_mse"]) == pytest.approx(float(wanted), rel=1e-3)


def test_given_scores_take_precedence_over_the_teachers(model: Any) -> None:
    scores = torch.rand(3, 3)
    found = stack_of(model)(features(model, COLUMNS, **{MARGIN_SCORES: scores}))
    vectors = [torch.tensor(model.encode(column)) for column in COLUMNS]
    wanted = distillation.margin_mse(vectors, torch.stack([scores[1], scores[2]], dim=1))
    assert float(found["margin_mse"]) == pytest.approx(float(wanted), rel=1e-3)


def test_terms_without_their_inputs_are_inactive(model: Any) -> None:
    assert stack_of(model)([model.preprocess(column) for column in COLUMNS]) == {}
    assert "margin_mse" not in stack_of(model)(features(model, COLUMNS[:2]))


def test_single_texts_are_enough(model: Any) -> None:
    every = {name: {"weight": 1.0} for name in DENSE_TERMS}
    section = LossSection.model_validate({"terms": every})
    stack = LossStack(model, section, active=DENSE_TERMS, dense=model.spectra, sizes=[32], distill_temperature=0.1)
    found = stack(features(model, COLUMNS[:1]))
    assert {"distill_embedding", "distill_similarity_32", "bridge"} <= set(found)
    assert not set(found) & {"semantic_32", "anchor", "spectral", "margin_mse"}


def test_cached_outputs_give_the_same_gradient(model: Any) -> None:
    gradients = []
    for cached in (None, 16):
        model.zero_grad()
        sum(stack_of(model, cached=cached)(features(model, COLUMNS)).values()).backward()  # type: ignore[union-attr]
        gradients.append(model.spectra.encoder.layers[0].ffn.up.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
    assert gradients[0].abs().max() > 0
