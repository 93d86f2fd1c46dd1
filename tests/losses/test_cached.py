"""A cached step gives the loss and the gradients of a plain one, whatever runs around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import spectra_nsa as sp
from spectra_nsa.config.loss_sections import LossSection
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.config.terms import TERM_FACTS
from spectra_nsa.core.errors import UsageError
from spectra_nsa.losses.stack import LossStack, NotFiniteError
from spectra_nsa.tokens import length_batches
from spectra_nsa.tokens.lengths import group_by_tokens
from tests.builders import DENSE_TERMS

COLUMNS = [
    ["open the file", "close a socket of the file and the list", "sort", "read text", "a model"],
    ["file open", "socket close", "list sort of text and token and vector and query", "text", "vector"],
    ["query a document", "vector of a model", "token", "write the list", "the a of"],
]
TOKENS = 24
TERMS = [name for name, facts in DENSE_TERMS.items() if not facts.learns_from]
MATCHING = [name for name in TERMS if "triplets" in TERM_FACTS[name].rows]
EVERY = {name: {"weight": 0.5, "train_encoder": True} for name in TERMS}
MIXED = {name: {"weight": 0.5, "train_encoder": place % 2 == 0} for place, name in enumerate(TERMS)}
Gradients = dict[str, torch.Tensor]


@pytest.fixture
def model(make_bert: Callable[..., Path]) -> Any:
    return spectra(make_bert())


def spectra(folder: Path, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    model = sp.warm_start(folder, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout, entity=True)
    torch.nn.init.uniform_(model.spectra.entity.prior.idf)
    for weight in model.spectra.gates():
        torch.nn.init.constant_(weight, 0.1)
    return model.train()


def step(
    model: Any,
    cached: int | None,
    *,
    columns: list[list[str]] = COLUMNS,
    terms: dict[str, Any] = EVERY,
    scale: float = 1.0,
    norms: bool = False,
    times: int = 1,
    labels: torch.Tensor | None = None,
) -> tuple[dict[str, float], Gradients, LossStack]:
    model.zero_grad()
    loss = LossStack(
        model,
        LossSection.model_validate({"terms": terms}),
        active=TERMS,
        dense=model.spectra,
        sizes=[32, 16],
        cached=cached,
    )
    loss.gradient_norms = {} if norms else None
    for _ in range(times):
        torch.manual_seed(1)
        values = loss([model.preprocess(column) for column in columns], labels)
        (torch.stack(list(values.values())).sum() * scale).backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return {name: float(value.detach()) for name, value in values.items()}, found, loss


def assert_equal(cached: Gradients, plain: Gradients, tolerance: float = 2e-5) -> None:
    assert set(cached) == set(plain)
    for name, wanted in plain.items():
        assert (cached[name] - wanted).abs().max() <= tolerance * (1 + wanted.abs().max()), name


@pytest.mark.parametrize("columns", [2, 3], ids=["pairs", "triplets"])
@pytest.mark.parametrize("terms", [EVERY, MIXED, {}], ids=["train_encoder", "half", "default"])
def test_loss_and_gradients_are_those_of_a_plain_step(model: Any, columns: int, terms: dict[str, Any]) -> None:
    plain, wanted, _ = step(model, None, columns=COLUMNS[:columns], terms=terms)
    for tokens in (TOKENS, 1, 10_000):
        cached, found, _ = step(model, tokens, columns=COLUMNS[:columns], terms=terms)
        assert cached == pytest.approx(plain, abs=1e-5)
        assert_equal(found, wanted)
    assert any("anomaly.prototypes" in name for name in found) and any("bridge.decode" in name for name in found)


def test_scored_pairs_too(model: Any) -> None:
    scores = torch.tensor([0.1, 0.9, 0.4, 0.4, 1.0])
    plain, wanted, _ = step(model, None, columns=COLUMNS[:2], labels=scores)
    cached, found, _ = step(model, TOKENS, columns=COLUMNS[:2], labels=scores)
    assert cached == pytest.approx(plain, abs=1e-5) and "cosent_16" in plain
    assert_equal(found, wanted)


def test_with_dropout_both_passes_draw_the_same_masks(
    make_bert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = spectra(make_bert(), dropout=0.3)
    monkeypatch.setattr(length_batches, "group_by_length", lambda lengths, _: group_by_tokens(lengths, TOKENS))
    plain, wanted, _ = step(model, None)
    cached, found, _ = step(model, TOKENS)
    assert cached == pytest.approx(plain, abs=1e-5)
    assert_equal(found, wanted)
    other = step(spectra(make_bert()), None)[0]
    assert other["semantic_32"] != pytest.approx(plain["semantic_32"], abs=1e-3), "dropout is really on"


def test_the_next_step_draws_new_masks(make_bert: Callable[..., Path]) -> None:
    model = spectra(make_bert(), dropout=0.3)
    values, _, loss = step(model, TOKENS)
    again = loss([model.preprocess(column) for column in COLUMNS])
    assert float(again["semantic_32"].detach()) != pytest.approx(values["semantic_32"], abs=1e-3)


def test_scale_and_accumulation_reach_every_gradient(model: Any) -> None:
    _, once, _ = step(model, TOKENS)
    _, found, _ = step(model, TOKENS, scale=1024 / 2, times=2)
    assert_equal(found, {name: value * 1024 for name, value in once.items()})


def test_gradient_norms_are_those_of_a_plain_step(model: Any) -> None:
    plain, cached = (step(model, tokens, norms=True)[2].gradient_norms for tokens in (None, TOKENS))
    assert plain is not None and len(plain) == len(MATCHING) + 1
    assert cached == pytest.approx(plain, rel=1e-4)


def test_gradient_checkpointing_changes_nothing(make_bert: Callable[..., Path]) -> None:
    model = spectra(make_bert(), dropout=0.3)
    _, wanted, _ = step(model, TOKENS)
    model.spectra.gradient_checkpointing_enable({"use_reentrant": False})
    assert_equal(step(model, TOKENS)[1], wanted)


def test_bf16_autocast_is_entered_again(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    whole = type(model).forward

    def watched(self: Any, input: dict[str, Any], **kwargs: Any) -> Any:
        seen.append((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return whole(self, input, **kwargs)

    exact = step(model, None)[1]
    monkeypatch.setattr(type(model), "forward", watched)
    loss = LossStack(
        model,
        LossSection.model_validate({"terms": EVERY}),
        active=TERMS,
        dense=model.spectra,
        sizes=[32],
        cached=TOKENS,
    )
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        values = loss([model.preprocess(column) for column in COLUMNS])
    torch.stack(list(values.values())).sum().backward()
    assert {graph for graph, _, _ in seen} == {False, True}
    assert {(on, kind) for _, on, kind in seen} == {(True, torch.bfloat16)}
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == set(exact)


def test_no_pass_holds_more_tokens_than_allowed(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    whole = type(model).forward

    def watched(self: Any, input: dict[str, Any], **kwargs: Any) -> Any:
        shapes.append((input["input_ids"].numel(), torch.is_grad_enabled()))
        return whole(self, input, **kwargs)

    monkeypatch.setattr(type(model), "forward", watched)
    step(model, TOKENS)
    assert max(tokens for tokens, _ in shapes) <= TOKENS and len(shapes) > 4
    assert [tokens for tokens, graph in shapes if graph] == [tokens for tokens, graph in shapes if not graph]


def test_without_gradients_there_is_only_a_loss(model: Any) -> None:
    with torch.no_grad():
        values = step_values(model)
    assert values and not any(value.requires_grad for value in values.values())


def step_values(model: Any) -> dict[str, torch.Tensor]:
    loss = LossStack(model, LossSection(), active=TERMS, dense=model.spectra, sizes=[32], cached=TOKENS)
    return loss([model.preprocess(column) for column in COLUMNS[:2]])


def test_what_is_not_finite_is_named_and_leaves_no_gradient(model: Any) -> None:
    with torch.no_grad():
        model.spectra.anomaly.prototypes.weight.fill_(float("inf"))
    with pytest.raises(NotFiniteError, match="term 'anomaly'"):
        step_values(model)
    assert all(weight.grad is None for weight in model.parameters())


def test_a_term_that_needs_more_than_outputs_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TERM_FACTS, "spectral", replace(TERM_FACTS["spectral"], cacheable=False))
    with pytest.raises(UsageError, match=r"'spectral'.*loss.terms.spectral.weight=0"):
        step(model, TOKENS)
    step(model, None)


def test_two_ways_to_split_a_batch_are_refused() -> None:
    with pytest.raises(UsageError, match="passes_per_batch and cached_pass_tokens"):
        load_recipe(None, ["train.cached_pass_tokens=512", "train.passes_per_batch=2"])
