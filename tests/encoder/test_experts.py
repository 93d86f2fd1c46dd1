"""Experts: their kernels against a plain loop, their routers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from spectra_nsa.core.errors import UsageError
from spectra_nsa.encoder.context import make_context, text_keys
from spectra_nsa.encoder.encoder import Encoder
from spectra_nsa.encoder.experts.kernels import Kernel, Weights, averaged, grouped, loop, plain, traceable
from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.encoder.experts.router import Router
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.encoder.spec import EncoderSpec

SPEC: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "layers": 2, "heads": 4, "ffn_size": 64, "ffn": "moe",
    "hidden_dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip


def encoder(**experts: Any) -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderSpec(**SPEC, experts=ExpertSpec(**({"count": 4} | experts))))


def layers_of(model: Encoder) -> list[ExpertFFN]:
    return [module for module in model.modules() if isinstance(module, ExpertFFN)]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 97, (6, 12), generator=generator)
    mask = (torch.arange(12) < torch.tensor([[12], [3], [7], [1], [12], [5]])).long()
    return ids * mask, mask


def inputs(gated: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Returns states, choices of two of six experts (one is never chosen), factors and weights, as leaves."""
    torch.manual_seed(2)
    rows = 50
    chosen = torch.stack([torch.randperm(5)[:2] for _ in range(rows)])
    shapes = [(6, 64, 32), (6, 64), (6, 32, 32 if gated else 64), (6, 32)]
    weights = [torch.randn(shape) * 0.2 for shape in shapes]
    return torch.randn(rows, 32), chosen, torch.rand(rows, 2), weights


def run(kernel: Kernel, gated: bool, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Returns the output of a kernel and its gradients."""
    x, chosen, weight, weights = inputs(gated)
    leaves = [value.to(dtype).requires_grad_() for value in (x, weight, *weights)]
    y = kernel(leaves[0], chosen, leaves[1], Weights(*leaves[2:], F.gelu, gated))
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    return [y, *torch.autograd.grad(y, leaves, gradient.to(y.dtype))]


@pytest.mark.parametrize("gated", [False, True], ids=["gelu", "geglu"])
@pytest.mark.parametrize("kernel", [loop, grouped, traceable])
def test_kernels_and_their_gradients_are_those_of_a_plain_loop(kernel: Kernel, gated: bool) -> None:
    for found, wanted in zip(run(kernel, gated), run(plain, gated), strict=True):
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp_min(1)


@pytest.mark.parametrize("kernel", [loop, grouped])
def test_kernels_in_bf16(kernel: Kernel) -> None:
    for found, wanted in zip(run(kernel, False, torch.bfloat16), run(plain, False), strict=True):
        assert found.dtype == torch.bfloat16
        assert torch.cosine_similarity(found.float().flatten(), wanted.flatten(), dim=0) > 0.999


def test_an_average_of_equal_experts_is_the_expert() -> None:
    x, _, _, weights = inputs()
    same = [weight[:1].expand_as(weight) for weight in weights]
    gate = torch.rand(5, 6).softmax(-1)
    found = averaged(x.view(5, 10, 32), gate, Weights(*same, F.gelu)).view(50, 32)
    first = torch.zeros(50, 1, dtype=torch.long)
    assert torch.allclose(found, plain(x, first, torch.ones(50, 1), Weights(*same, F.gelu)), atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [{}, {"top_k": 2}, {"top_k": 2, "sliced": True}, {"router": "text"}, {"router": "text_layer"}, {"router": "smear"}],
    ids=str,
)
def test_the_output_teaches_the_router(change: dict[str, Any]) -> None:
    model = encoder(**change)
    ids, mask = batch()
    model(ids, mask).states[-1][..., 0].sum().backward()
    for layer in layers_of(model):
        assert layer.router.weight.grad is not None and layer.router.weight.grad.abs().max() > 1e-7


@pytest.mark.parametrize("router", ["hash", "frozen"])
def test_a_control_learns_no_gate(router: str) -> None:
    model = encoder(router=router)
    assert not any("router" in name for name, _ in model.named_parameters())
    ids, mask = batch()
    (first, second) = (layer.routing for layer in model(ids, mask).signals)
    assert first is not None and second is not None
    real = mask.bool()
    assert len(first.chosen_BSK[real].unique()) == 4, "every expert is used"
    assert not torch.equal(first.chosen_BSK[real], second.chosen_BSK[real]), "layers differ"
    if router == "hash":
        of_id = {int(token): int(expert) for token, expert in zip(ids[real], first.chosen_BSK[real], strict=True)}
        assert [of_id[int(token)] for token in ids[real]] == first.chosen_BSK[real].flatten().tolist()


def test_a_hash_of_texts_ignores_padding_and_heeds_the_order() -> None:
    model = encoder(router="text_hash").eval()
    texts = torch.randint(1, 97, (64, 8), generator=torch.Generator().manual_seed(3))
    layer = model(texts, torch.ones_like(texts)).signals[1].routing
    assert layer is not None and len(layer.chosen_BSK.unique()) == 4, "every expert is used"
    padded, mask = F.pad(texts, (3, 2)), F.pad(torch.ones_like(texts), (3, 2))
    assert torch.equal(model(padded, mask).signals[1].routing.chosen_BSK, layer.chosen_BSK)  # type: ignore[union-attr]
    reverse = model(texts.flip(1), torch.ones_like(texts)).signals[1].routing
    assert reverse is not None and not torch.equal(reverse.chosen_BSK, layer.chosen_BSK)


def test_padding_never_reaches_a_router(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    forward = Router.forward

    def count(self: Router, x: torch.Tensor, *more: Any) -> Any:
        seen.append(len(x))
        return forward(self, x, *more)

    monkeypatch.setattr(Router, "forward", count)
    ids, mask = batch()
    routing = encoder()(ids, mask).signals[0].routing
    assert seen == [int(mask.sum())] * 2
    assert routing is not None and (routing.chosen_BSK[~mask.bool()] == -1).all()
    assert not routing.probs_BSE[~mask.bool()].any() and not routing.logits_BSE[~mask.bool()].any()


@pytest.mark.parametrize("cast", ["autocast", "bfloat16", "half"])
def test_a_router_computes_in_fp32(cast: str) -> None:
    router = Router(ExpertSpec(count=4, balance_bias=True), 32, layer=0).eval()
    before = router.weight.clone()
    x = torch.randn(20, 32)
    wanted = router(x)
    if cast == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = router(x)
    else:
        found = getattr(router, cast)()(x)
        assert router.bias is not None and router.bias.dtype == torch.float32
    assert torch.equal(router.weight, before) and torch.equal(found.logits_ME, wanted.logits_ME)


def test_a_model_that_is_cast_keeps_its_routers() -> None:
    model = encoder().to(torch.bfloat16)
    kinds = {name.rsplit(".", 1)[-1]: weight.dtype for name, weight in model.named_parameters() if ".ffn." in name}
    assert kinds["weight"] == torch.float32 and kinds["up_proj"] == torch.bfloat16
    ids, mask = batch()
    assert model(ids, mask).states[-1].dtype == torch.bfloat16


def test_top_two_shares_sum_to_one_and_slices_count_in_full() -> None:
    x = torch.randn(20, 32)
    two = Router(ExpertSpec(count=4, top_k=2), 32, 0)(x)
    assert torch.allclose(two.weight_MK.sum(1), torch.ones(20))
    slices = Router(ExpertSpec(count=4, top_k=2, sliced=True), 32, 0)(x)
    assert (slices.weight_MK == 1).all() and torch.allclose(slices.probs_ME.sum(1), torch.ones(20))
    assert (slices.chosen_MK[:, 0] < 2).all() and (slices.chosen_MK[:, 1] >= 2).all(), "one of each group"


def test_capacity_drops_the_lowest_gates_in_training_only() -> None:
    router = Router(ExpertSpec(count=2, capacity=0.5), 4, 0)
    with torch.no_grad():
        router.weight.zero_()
        router.weight[0, 0] = 1.0
    x = torch.zeros(8, 4)
    x[:, 0] = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, -1.0, -2.0])
    choice = router.train()(x)
    assert choice.chosen_MK.flatten().tolist() == [0] * 6 + [1] * 2
    assert choice.weight_MK.flatten().tolist() == [1, 0, 0, 0, 0, 1, 1, 1], "8 · 0.5 / 2 = 2 for each"
    assert (router.eval()(x).weight_MK == 1).all()


def test_noise_and_dropout_are_for_training() -> None:
    model = encoder(noise=1.0, dropout=0.5)
    ids, mask = batch()
    drawn = [model.train()(ids, mask).states[-1] for _ in range(2)]
    assert not torch.equal(*drawn)
    still = [model.eval()(ids, mask).states[-1] for _ in range(2)]
    assert torch.equal(*still)


def test_the_bias_selects_and_is_no_part_of_the_gate() -> None:
    router = Router(ExpertSpec(count=3, balance_bias=True), 8, 0)
    x = torch.randn(10, 8)
    before = router(x)
    assert router.bias is not None
    router.bias[2] = 10.0
    after = router(x)
    assert (after.chosen_MK == 2).all() and torch.equal(before.probs_ME, after.probs_ME)


def test_layers_with_experts() -> None:
    def layers(**change: Any) -> list[int]:
        return EncoderSpec(**(SPEC | {"layers": 6}), experts=ExpertSpec(**change)).expert_layers

    assert layers() == [0, 1, 2, 3, 4, 5]
    assert layers(every=2) == [1, 3, 5] and layers(first=2) == [2, 3, 4, 5] and layers(every=2, first=2) == [3, 5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": 1}, "plain feed-forward"),
        ({"count": 2, "top_k": 3}, "top_k lower"),
        ({"count": 2, "top_k": 2, "sliced": True}, "even count from 4"),
        ({"count": 4, "sliced": True}, "top_k=2"),
        ({"router": "tokens"}, "token"),
        ({"kind": "relu"}, "gelu"),
        ({"router": "smear", "top_k": 2}, "all experts"),
        ({"router": "hash", "noise": 0.1}, "fixed"),
        ({"capacity": 0.0}, "capacity"),
        ({"every": 0}, "every"),
    ],
    ids=str,
)
def test_experts_that_do_not_go_together_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ExpertSpec(**change)


@pytest.mark.parametrize("values", [{"count": "8"}, {"count": True}, {"shared": 1}, {"capacity": "x"}, {"cuont": 4}])
def test_a_config_with_broken_experts_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"experts|count"):
        ExpertSpec.from_config(values)


def test_config_round_trip() -> None:
    spec = ExpertSpec(count=6, top_k=2, capacity=1.25, router="text")
    assert ExpertSpec.from_config(spec.to_config()) == spec


@pytest.mark.parametrize("k", [1, 2])
def test_hashes_of_layers_are_independent_and_even(k: int) -> None:
    ids, x = torch.arange(20_000), torch.zeros(20_000, 8)
    chosen = [Router(ExpertSpec(count=8, router="hash", top_k=k), 8, layer)(x, ids) for layer in range(6)]
    for choice in chosen:
        assert torch.bincount(choice.chosen_MK.flatten()).float().div(20_000 * k / 8).sub(1).abs().max() < 0.05
        assert torch.allclose(choice.weight_MK, torch.full_like(choice.weight_MK, 1 / k), atol=1e-6)
    pairs = torch.bincount(8 * chosen[0].chosen_MK[:, 0] + chosen[3].chosen_MK[:, 0], minlength=64)
    assert k > 1 or pairs.float().div(20_000 / 64).sub(1).abs().max() < 0.3


def test_keys_of_texts_do_not_collide() -> None:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(1, 30_000, (20_000, 6), generator=generator)
    context = replace(make_context(torch.ones_like(ids), None), ids_BT=ids)
    assert len(text_keys(context).unique()) > 19_998


def test_a_traced_expert_of_a_text_gives_the_router_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoder(router="text")
    ids, mask = batch()
    expected = torch.autograd.grad(model(ids, mask).states[-1].square().sum(), layers_of(model)[0].router.weight)[0]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    hidden = model(ids, mask).states[-1] * mask[..., None]
    found = torch.autograd.grad(hidden.square().sum(), layers_of(model)[0].router.weight)[0]
    assert expected.abs().max() > 0 and found.abs().max() > 0
