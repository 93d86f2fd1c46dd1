"""The losses of experts: their formulas, and that how a batch is computed changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import spectra_nsa as sp
from spectra_nsa.config.loss_sections import LossSection
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.encoder.spec import EncoderSpec
from spectra_nsa.losses.expert_load import WINDOW, ExpertLoad
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.losses.terms.routing import balance, router_z
from spectra_nsa.training.loop.expert_balance import RATE, BalanceExperts
from tests.builders import DENSE_TERMS

COLUMNS = [
    ["open the file", "close a socket of the file and the list", "sort", "read text"],
    ["file open", "socket close", "list sort of text and token and vector and query", "text"],
]
TERMS = ("router_balance", "router_z")


def model_of(folder: Path, **experts: Any) -> Any:
    torch.manual_seed(0)
    settings = {"count": 4} | experts
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = sp.warm_start(folder, ffn="moe", experts=settings, **off)
    for name, weight in model.named_parameters():
        if "router" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model.train()


def stack_of(model: Any, **options: Any) -> LossStack:
    section = LossSection.model_validate({"terms": {name: {"weight": 1.0} for name in TERMS}})
    return LossStack(model, section, active=["semantic", *TERMS], dense=model.spectra, sizes=[32], **options)


def step(model: Any, **options: Any) -> tuple[dict[str, float], dict[str, torch.Tensor], dict[str, float]]:
    """Returns the losses, the gradients, and the figures of one batch."""
    model.zero_grad()
    stack = stack_of(model, **options)
    values = stack([model.preprocess(column) for column in COLUMNS])
    torch.stack(list(values.values())).sum().backward()
    stack.finish()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    assert stack.experts is not None
    return {name: value.item() for name, value in values.items()}, gradients, stack.experts.take_figures()


def test_balance_is_one_if_balanced_and_the_number_of_experts_in_collapse() -> None:
    even, probs = torch.full((3, 4), 5.0), torch.full((3, 4), 5.0)
    assert balance(even, probs) == pytest.approx(1)
    collapsed = 20.0 * torch.eye(4)[:3]
    assert balance(collapsed, collapsed) == pytest.approx(4)


def test_opposite_collapse_of_two_layers_does_not_cancel() -> None:
    collapsed = torch.tensor([[10.0, 0.0], [0.0, 10.0]])
    assert balance(collapsed, collapsed) == pytest.approx(2)


def test_the_gradient_is_that_of_the_written_formula() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(30, 8), torch.randn(4, 8, requires_grad=True)
    logits = x @ weight.T
    chosen = F.one_hot(logits.argmax(-1), 4).float()
    found = balance(chosen.sum(0)[None], logits.softmax(-1).sum(0)[None])
    wanted = 4 * (chosen.mean(0) * logits.softmax(-1).mean(0)).sum()
    for one, other in ((found, wanted), (2 * found, 2 * wanted)):
        gradients = [torch.autograd.grad(value, weight, retain_graph=True)[0] for value in (one, other)]
        assert gradients[0].abs().max() > 1e-4 and torch.allclose(*gradients, atol=1e-7)
    squares = router_z(logits.logsumexp(-1).square().sum()[None], torch.tensor([30.0]))
    assert squares.item() == pytest.approx(logits.logsumexp(-1).square().mean().item())


@pytest.mark.parametrize("experts", [{}, {"top_k": 2}, {"top_k": 2, "sliced": True}, {"router": "text"}], ids=str)
def test_passes_caches_and_checkpoints_change_nothing(make_bert: Callable[..., Path], experts: dict[str, Any]) -> None:
    model = model_of(make_bert(), **experts)
    values, gradients, figures = step(model, groups=1)
    assert 1 < values["router_balance"] < 4 and values["router_z"] > 0
    assert any(gradient.abs().max() > 1e-4 for name, gradient in gradients.items() if "router" in name)

    def compare(**options: Any) -> None:
        found, those, counted = step(model, **options)
        assert found == pytest.approx(values, abs=1e-5) and counted == pytest.approx(figures)
        for name, gradient in gradients.items():
            assert (those[name] - gradient).abs().max() < 1e-5 * max(1, gradient.abs().max()), name

    compare(groups=4)
    compare(cached=24)
    model.spectra.gradient_checkpointing_enable({"use_reentrant": False})
    compare(groups=4)
    compare(cached=24)


def test_padding_counts_nothing(make_bert: Callable[..., Path]) -> None:
    model = model_of(make_bert()).eval()
    texts = [text for column in COLUMNS for text in column]
    names = ["router_load", "router_probs", "router_square", "router_entropy", "router_margin"]
    together = model.encode(texts, outputs=names)
    for row, text in enumerate(texts):
        alone = model.encode([text], outputs=names)
        for name in names:
            assert alone[name][0] == pytest.approx(together[name][row], abs=1e-4), name
        tokens = len(model.tokenizer(text)["input_ids"])
        assert (together["router_load"][row].sum(-1) == tokens).all()


def test_models_without_a_gate_to_balance_have_no_such_terms(make_bert: Callable[..., Path]) -> None:
    folder = make_bert()
    for experts in ({"router": "hash"}, {"router": "frozen"}, {"router": "smear"}):
        assert stack_of(model_of(folder, **experts)).active == ("semantic",)
    assert stack_of(model_of(folder, balance_bias=True)).active == ("semantic", "router_z")
    assert not set(TERMS) & set(DENSE_TERMS)
    with pytest.raises(ValueError, match="router_load"):
        sp.warm_start(folder).encode(["a"], outputs=["router_load"])


def load_of(values: list[list[float]]) -> dict[str, torch.Tensor]:
    return {"router_load": torch.tensor([values]), "router_entropy": torch.zeros(1, len(values))}


def test_the_batches_of_a_step_share_a_load() -> None:
    spec = EncoderSpec(
        vocab_size=9, hidden_size=8, layers=1, heads=1, ffn_size=8, ffn="moe", experts=ExpertSpec(count=2)
    )
    load = ExpertLoad(spec)
    load.observe([load_of([[3.0, 1.0]])], step=0)
    load.observe([load_of([[1.0, 3.0]])], step=0)
    assert load.for_balance() is not None and torch.equal(load.for_balance(), torch.tensor([[4.0, 4.0]]))
    load.observe([load_of([[0.0, 4.0]])], step=1)
    assert torch.equal(load.for_balance(), torch.tensor([[0.0, 4.0]]))
    assert load.take_figures()["expert_load_0_1"] == pytest.approx(8 / 12, abs=1e-4) and not load.take_figures()


def test_the_load_of_texts_is_that_of_many_batches_and_resumes() -> None:
    experts = ExpertSpec(count=2, router="text")
    spec = EncoderSpec(vocab_size=9, hidden_size=8, layers=1, heads=1, ffn_size=8, ffn="moe", experts=experts)
    load = ExpertLoad(spec)
    for number in range(WINDOW):
        load.observe([load_of([[4.0, 0.0] if number % 2 else [0.0, 4.0]])], step=number)
    found = load.for_balance()
    assert found is not None and found[0, 0] == pytest.approx(float(found[0, 1])), "batches of one domain each"
    other = ExpertLoad(spec)
    other.restore(load.state())
    for each in (load, other):
        each.observe([load_of([[4.0, 0.0]])], step=WINDOW)
    assert torch.equal(load.for_balance(), other.for_balance())
    assert load.take_figures() == other.take_figures()


def test_the_bias_moves_against_the_load(make_bert: Callable[..., Path]) -> None:
    model = model_of(make_bert(num_hidden_layers=2), balance_bias=True)
    stack = stack_of(model)
    callback = BalanceExperts(model.spectra.encoder, stack)
    assert stack.experts is not None
    stack.experts.observe([load_of([[8.0, 2.0, 1.0, 5.0], [4.0, 4.0, 4.0, 4.0]])], step=0)
    callback.on_step_end(*[None] * 3)  # type: ignore[arg-type]
    first, second = (router.bias for router in callback.routers)
    assert first is not None and first.tolist() == pytest.approx([-RATE, RATE, RATE, -RATE])
    assert second is not None and not second.any()
    before, stack.step = first.clone(), 1
    callback.on_step_end(*[None] * 3)  # type: ignore[arg-type]
    assert torch.equal(first, before), "a step without a load of its own moves nothing"
