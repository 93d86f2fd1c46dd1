"""The stack: weights over time, which gradients reach the encoder, and errors that name the term."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers.util import pairwise_angle_sim, pairwise_cos_sim

import spectra_nsa as sp
from spectra_nsa.config.loss_sections import LossSection
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.config.terms import TERM_FACTS, RowKind
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.losses.stack import LossStack, NotFiniteError
from spectra_nsa.training.run import train
from tests.builders import DENSE_TERMS, WORDS

ANCHORS = ["open the file", "close a socket", "sort a list", "read text"]
POSITIVES = ["file open", "socket close", "list sort", "text read"]
NEGATIVES = ["query a document", "vector of a model", "token", "write"]
TERMS = [name for name, facts in DENSE_TERMS.items() if not facts.learns_from]
SCORED = [name for name in TERMS if TERM_FACTS[name].rows == {"scored"}]


def terms_of(rows: RowKind) -> set[str]:
    return {name for name in TERMS if rows in TERM_FACTS[name].rows}


@pytest.fixture
def model(make_bert: Callable[..., Path]) -> Any:
    model = sp.warm_start(make_bert(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    torch.nn.init.uniform_(model.spectra.entity.prior.idf)
    return model


def stack_of(model: Any, terms: dict[str, Any] | None = None, **options: Any) -> LossStack:
    section = LossSection.model_validate({"terms": terms or {}, **options})
    return LossStack(model, section, active=TERMS, dense=model.spectra, sizes=[32, 16])


def features(model: Any, *columns: list[str]) -> list[dict[str, Any]]:
    return [model.preprocess(column) for column in columns]


def test_weights_start_and_ramp(model: Any) -> None:
    stack = stack_of(model, {"spectral": {"weight": 2.0, "start": 10, "ramp": 3}})
    found = []
    for stack.step in (0, 9, 10, 11, 12, 13, 100):
        found.append(stack.weight("spectral"))
    assert found == [0, 0, 0.5, 1.0, 1.5, 2.0, 2.0]


def test_temperature_falls_on_a_half_cosine(model: Any) -> None:
    stack = stack_of(model, temperature=0.05, temperature_start=0.07)
    stack.steps = 100
    found = []
    for stack.step in (0, 50, 100):
        found.append(stack.temperature)
    assert found == pytest.approx([0.07, 0.06, 0.05])


def test_all_terms_of_pairs_and_of_triplets(model: Any) -> None:
    every = {name: {"weight": 1.0} for name in TERMS}
    pairs = stack_of(model, every)(features(model, ANCHORS, POSITIVES))
    assert set(pairs) == {"semantic_32", "semantic_16", *terms_of("pairs")} - {"semantic"}
    assert not {"triplet", "ranking", *SCORED} & set(pairs)
    triplets = stack_of(model, every)(features(model, ANCHORS, POSITIVES, NEGATIVES))
    assert set(triplets) == set(pairs) | {"triplet", "ranking"}
    assert all(torch.isfinite(value) and value.requires_grad for value in triplets.values())


def test_terms_of_scored_pairs(model: Any) -> None:
    every = {name: {"weight": 1.0} for name in TERMS}
    found = stack_of(model, every)(features(model, ANCHORS, POSITIVES), torch.tensor([0.1, 0.9, 0.5, 1.0]))
    sizes = {f"{name}_{size}" for name in SCORED for size in (32, 16)}
    assert set(found) == sizes | (terms_of("scored") - set(SCORED))
    assert {"matryoshka_angular", "spectral", "fast", "bridge", "anomaly"} <= set(found)
    assert all(torch.isfinite(value) and value.requires_grad for value in found.values())


@pytest.mark.parametrize("name", SCORED)
def test_training_a_scored_term_orders_similarities_by_score(model: Any, name: str) -> None:
    stack = stack_of(model, {term: {"weight": float(term == name)} for term in TERMS})
    columns, scores = features(model, ANCHORS, POSITIVES), torch.tensor([0.0, 1.0, 0.2, 0.8], dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = sum(stack(columns, scores).values())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        one, other = (model(column)["sentence_embedding"] for column in columns)
    similarity = pairwise_angle_sim if name == "angle" else pairwise_cos_sim
    assert losses[-1] < losses[0]
    assert torch.equal(similarity(one, other).argsort(), scores.argsort())


@pytest.mark.parametrize("name", ["ranking", "anchor", "fast", "bridge", "entity", "anomaly"])
@pytest.mark.parametrize("train_encoder", [False, True], ids=["head", "encoder"])
def test_a_heads_term_reaches_the_encoder_only_if_it_trains_it(model: Any, name: str, train_encoder: bool) -> None:
    only = {term: {"weight": float(term == name), "train_encoder": train_encoder} for term in TERMS}
    values = stack_of(model, only)(features(model, ANCHORS, POSITIVES, NEGATIVES))
    values[name].backward()
    heads = ("entity", "ranking", "anchors", "bridge", "anomaly")
    learns = {part for part in heads for w in getattr(model.spectra, part).parameters() if w.grad is not None}
    assert learns
    reached = any(weight.grad is not None and weight.grad.any() for weight in model.spectra.encoder.parameters())
    assert reached == (train_encoder and name != "anomaly"), "the anomaly head's texts are never moved by its term"


def test_default_heads_leave_the_embeddings_gradient_alone(model: Any) -> None:
    gradients = []
    for terms in ({}, {name: {"weight": 0.0} for name in TERMS if name != "semantic"}):
        model.zero_grad()
        sum(stack_of(model, terms)(features(model, ANCHORS, POSITIVES)).values()).backward()
        gradients.append([weight.grad.clone() for weight in model.spectra.encoder.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))


def test_the_stack_owns_no_parameters(model: Any) -> None:
    assert {id(weight) for weight in stack_of(model).parameters()} == {id(weight) for weight in model.parameters()}


def test_gradient_norms_are_measured_for_every_term(model: Any) -> None:
    stack = stack_of(model)
    stack.gradient_norms = {}
    values = stack(features(model, ANCHORS, POSITIVES))
    assert set(stack.gradient_norms) == set(values)
    assert all(norm > 0 for norm in stack.gradient_norms.values())


def test_an_output_that_is_not_finite_is_named(model: Any) -> None:
    with torch.no_grad():
        model.spectra.anchors.anchors.weight.fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="output 'anchor64'"):
        stack_of(model)(features(model, ANCHORS, POSITIVES))


def test_a_term_that_is_not_finite_is_named(model: Any) -> None:
    with torch.no_grad():
        model.spectra.anomaly.prototypes.weight.fill_(float("inf"))
    with pytest.raises(NotFiniteError, match=r"term 'anomaly'.*embedding"):
        stack_of(model)(features(model, ANCHORS, POSITIVES))


def run_recipe(tmp_path: Path, make_bert: Callable[..., Path], *overrides: str) -> Any:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"anchor": f"{a} the {b}", "positive": f"{b} {a}"} for a in WORDS for b in WORDS[:4] if a != b]
    pairs.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    base = [
        f"model.start={make_bert()}", f"data.train={pairs}", f"output={tmp_path / 'runs'}", "name=r", "train.batch=8",
        "data.dev_rows=0", "train.log_every=1", "train.precision=fp32",
    ]  # fmt: skip
    return load_recipe(None, [*base, *overrides])


def test_a_bad_step_is_skipped_and_counted_and_many_end_the_run(
    tmp_path: Path, make_bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = LossStack.forward

    def failing(self: LossStack, *args: Any, **kwargs: Any) -> Any:
        if self.step in bad:
            raise NotFiniteError("the term 'semantic_32' is nan, from embedding")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(LossStack, "forward", failing)
    bad = {2, 3}
    result = train(run_recipe(tmp_path, make_bert, "train.max_steps=5"))
    assert result.steps == 5
    assert all(torch.isfinite(weight).all() for weight in result.model.parameters())
    assert capfd.readouterr().err.count("skipped: the term 'semantic_32' is nan") == 2
    bad = set(range(100))
    with pytest.raises(SpectraError, match=r"10 steps in a row were skipped.*train.lr"):
        train(run_recipe(tmp_path, make_bert, "train.max_steps=20", "name=s"))


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(
    tmp_path: Path, make_bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = LossStack.forward

    class Exploding(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    def exploding(self: LossStack, *args: Any, **kwargs: Any) -> Any:
        values = whole(self, *args, **kwargs)
        return {k: Exploding.apply(v) for k, v in values.items()} if self.step == 2 else values

    monkeypatch.setattr(LossStack, "forward", exploding)
    result = train(run_recipe(tmp_path, make_bert, "train.max_steps=5"))
    assert result.steps == 5 and all(torch.isfinite(weight).all() for weight in result.model.parameters())
    assert capfd.readouterr().err.count("step 3 skipped: the gradient of") == 1


def test_every_part_learns_and_gates_move_faster(tmp_path: Path, make_bert: Callable[..., Path]) -> None:
    recipe = run_recipe(
        tmp_path, make_bert, "train.max_steps=50", "model.spectral=on", "model.depth_mix=on", "model.entity=on",
        "model.pooling=entropy", "train.lr=1e-3", "train.epochs=50",
    )  # fmt: skip
    from spectra_nsa.training.init.start import open_start

    start = open_start(recipe)
    before = {name: weight.detach().clone() for name, weight in start.spectra.named_parameters()}
    result = train(recipe)
    moved = {
        name: float((weight.detach() - before[name]).abs().max())
        for name, weight in result.model.spectra.named_parameters()
        if before[name].shape == weight.shape
    }
    for part in ("mixer.down", "mixer.filter.slope", "undecided", "gate", "depth", "entity", "fusion", "anchors"):
        assert any(value > 1e-6 for name, value in moved.items() if part in name), part
    for part in ("bridge.project", "bridge.decode", "anomaly.prototypes", "pooling.gate"):
        assert any(value > 1e-6 for name, value in moved.items() if part in name), part
    gates = [value for name, value in moved.items() if "attention.gate" in name]
    assert min(gates) > 10 * 1e-3, "gates have a learning rate of their own"
    texts = ANCHORS
    assert abs(result.model.encode(texts) - start.encode(texts)).max() > 1e-3
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert {"semantic_32", "anchor", "fast", "bridge", "entity", "anomaly", "temperature"} <= set(rows[3])
    assert "grad_norm_anchor" in rows[3]
