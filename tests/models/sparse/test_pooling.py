from __future__ import annotations

import pytest
import torch
from sentence_transformers.sparse_encoder.modules import SpladePooling

from spectra_nsa.models.sparse import pooling
from spectra_nsa.models.sparse.pooling import max_relu_logits


def _case(*, left: bool = False, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(5, 9, 16, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(300, 16, generator=generator, dtype=dtype).requires_grad_()
    bias = (torch.randn(300, generator=generator, dtype=dtype) - 4).requires_grad_()
    mask = (torch.arange(9) < torch.tensor([9, 4, 1, 7, 3]).unsqueeze(1)).long()
    return {"states": states, "mask": mask.flip(1) if left else mask, "weight": weight, "bias": bias}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("block", [None, 1])
def test_vectors_and_gradients_are_those_of_the_library(
    left: bool, block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block is not None:  # many blocks of the vocabulary
        monkeypatch.setattr(pooling, "_BLOCK_LOGITS", block)
        monkeypatch.setattr(pooling, "_FEWEST_COLUMNS", 7)
    case = _case(left=left)
    states, mask, weight, bias = case.values()
    logits = torch.nn.functional.linear(states, weight, bias)
    library = SpladePooling("max").train()({"token_embeddings": logits, "attention_mask": mask})["sentence_embedding"]
    ours = max_relu_logits(states, mask, weight, bias).log1p()
    torch.testing.assert_close(ours, library)
    factor = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    wanted = torch.autograd.grad((library * factor).sum(), [states, weight, bias])
    found = torch.autograd.grad((ours * factor).sum(), [states, weight, bias])
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


def test_only_what_needs_a_gradient_gets_one() -> None:
    states, mask, weight, bias = _case().values()
    max_relu_logits(states.detach(), mask, weight, bias.detach()).sum().backward()
    assert states.grad is None and bias.grad is None
    assert weight.grad is not None and weight.grad.any()


def test_a_text_without_tokens_has_no_terms() -> None:
    states, mask, weight, bias = _case().values()
    mask[1] = 0
    vectors = max_relu_logits(states, mask, weight, bias + 10)
    assert not vectors[1].any() and vectors[0].all()


def test_autocast_computes_in_its_number_format() -> None:
    states, mask, weight, bias = _case().values()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = max_relu_logits(states, mask, weight, bias)
    assert rounded.dtype == torch.float32
    exact = max_relu_logits(states, mask, weight, bias)
    assert 0 < (rounded - exact).abs().max() < 0.1
