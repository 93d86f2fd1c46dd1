"""Packed matrices compute what the plain ones do, and follow every change of the weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spectra_nsa as sp
from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.precision import cpu_multiplies_bf16
from spectra_nsa.models.encoding import packed
from spectra_nsa.models.encoding.packed import PackedLinear, packed_encoder

TEXTS = ["open a file", "read the lines of a text file and sort them", "close"]


@pytest.fixture
def model(make_bert: Callable[..., Path]) -> Any:
    return sp.warm_start(make_bert()).eval()


def plain(model: Any) -> np.ndarray:
    """Returns the vectors that the model's own forward pass computes."""
    with torch.no_grad():
        return model(model.preprocess(TEXTS))["sentence_embedding"].numpy()


def kinds(encoder: Any) -> set[type]:
    return {type(module) for module in encoder.modules()}


def test_the_packed_encoder_computes_the_same(model: Any) -> None:
    found = packed_encoder(model.spectra.encoder, "fp32")
    assert PackedLinear in kinds(found) and torch.nn.Linear not in kinds(found)
    assert packed_encoder(model.spectra.encoder, "fp32") is found
    assert PackedLinear not in kinds(model.spectra.encoder)
    assert np.abs(model.encode(TEXTS) - plain(model)).max() <= 1e-6


def changed_in_place(model: Any) -> None:
    with torch.no_grad():
        model.spectra.encoder.layers[0].ffn.up.weight.mul_(1.5)


def changed_behind_torch(model: Any) -> None:
    model.spectra.encoder.layers[1].attention.out.weight.data.mul_(1.5)


def replaced_values(model: Any) -> None:
    weight = model.spectra.encoder.layers[0].attention.qkv.weight
    weight.data = weight.data * 1.5


def replaced_table(model: Any) -> None:
    table = model.spectra.get_input_embeddings()
    fresh = torch.nn.Embedding.from_pretrained(table.weight.detach() * 1.5)
    model.spectra.set_input_embeddings(fresh)


def replaced_layer(model: Any) -> None:
    ffn = model.spectra.encoder.layers[0].ffn
    ffn.up = copy.deepcopy(ffn.up)
    ffn.up.weight.data *= 1.5


def trained(model: Any) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model(model.preprocess(TEXTS))["sentence_embedding"].std().backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize(
    "change",
    [changed_in_place, changed_behind_torch, replaced_values, replaced_table, replaced_layer, trained],
)
def test_changes_of_the_weights_are_followed(model: Any, change: Callable[[Any], None]) -> None:
    before = model.encode(TEXTS)
    change(model)
    after = model.encode(TEXTS)
    assert np.abs(after - before).max() > 1e-4
    assert np.abs(after - plain(model)).max() <= 1e-6


def test_hooks_run(model: Any) -> None:
    model.encode(TEXTS)
    seen: list[str] = []
    for layer in (model.spectra.encoder.layers[0].ffn.up, model.spectra.encoder.layers[1]):
        layer.register_forward_hook(lambda *call: seen.append("called"))
    model.encode(TEXTS)
    assert seen == ["called"] * 2


def test_a_model_that_has_encoded_can_be_copied_and_pickled(model: Any) -> None:
    expected = model.encode(TEXTS)
    assert np.abs(copy.deepcopy(model).encode(TEXTS) - expected).max() <= 1e-6
    assert len(pickle.dumps(model.spectra.encoder)) < 1.2 * sum(4 * w.numel() for w in model.spectra.parameters()) + 1e5


def test_without_the_kernels_the_encoder_itself_is_used(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_has_kernels", lambda: False)
    assert packed_encoder(model.spectra.encoder, "fp32") is model.spectra.encoder
    assert np.abs(model.encode(TEXTS) - plain(model)).max() <= 1e-6


def test_precision_is_a_number_format_or_that_of_the_vectors(model: Any) -> None:
    full = model.encode(TEXTS, precision="fp32")
    assert full.dtype == np.float32 and np.array_equal(full, model.encode(TEXTS, precision="float32"))
    half = model.encode(TEXTS, precision="bf16")
    assert half.dtype == np.float32 and 0 < np.abs(half - full).max() < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        assert np.abs(model.encode(TEXTS) - half).max() < 0.02
        assert np.array_equal(model.encode(TEXTS, precision="fp32"), full)
    assert model.encode(TEXTS, precision="ubinary").dtype == np.uint8
    with pytest.raises(UsageError, match="Did you mean 'bf16'"):
        model.encode(TEXTS, precision="bf61")
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        model.encode(TEXTS, precision="fp16")


@pytest.mark.skipif(not cpu_multiplies_bf16(), reason="the processor does not multiply bf16")
def test_bf16_is_close_and_packed(minilm: Path) -> None:
    model = sp.warm_start(minilm)
    texts = [*TEXTS, "A longer text, with a few more words in it than the others have. " * 20]
    full, half = model.encode(texts, precision="fp32"), model.encode(texts, precision="auto")
    assert PackedLinear in kinds(packed_encoder(model.spectra.encoder, "bf16"))
    assert (full * half).sum(1).min() >= 0.9999
