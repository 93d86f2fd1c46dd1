from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer

from spectra_nsa.core.precision import autocast
from spectra_nsa.models.sparse.build import splade_from
from spectra_nsa.tokens.length_batches import outputs_by_length
from tests.builders import WORDS, tiny_masked_lm

TEXTS = [[" ".join(WORDS[:9]), WORDS[3]], [f"{WORDS[1]} unknown {WORDS[2]}", " ".join(WORDS[4:7])]]


def gradients(model: Any, columns: list[dict[str, Any]], *, table: bool, precision: str = "fp32") -> dict[str, Any]:
    model.zero_grad()
    with autocast("cpu", precision):
        outputs = outputs_by_length(model, columns, 4, ["sparse"], table=model.token_embedding() if table else None)
        loss = sum((column["sparse"] * torch.arange(column["sparse"].shape[1])).sum() for column in outputs)
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def prepared(model: Any) -> list[dict[str, Any]]:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    return [{**model.preprocess(texts, task="document"), "spectra_outputs": ("sparse",)} for texts in TEXTS]


def test_looking_ids_up_once_gives_the_same_gradients(tmp_path: Path) -> None:
    model = splade_from(tiny_masked_lm(tmp_path / "model"), max_length=32)
    columns = prepared(model)
    wanted, found = (gradients(model, columns, table=table) for table in (False, True))
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def test_attention_that_trains_in_bf16_is_computed_in_fp32(tmp_path: Path, monkeypatch: Any) -> None:
    model = splade_from(tiny_masked_lm(tmp_path / "model"), max_length=32)
    columns = prepared(model)
    assert model.head() is not None  # checked once, without a gradient
    seen: list[torch.dtype] = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def spy(query: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(query.dtype)
        return fused(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    ours = gradients(model, columns, table=False, precision="bf16")
    assert set(seen) == {torch.float32}
    for module in model.modules():
        if isinstance(module, Transformer):
            module.model.set_attn_implementation("sdpa")
    library = gradients(model, columns, table=False, precision="bf16")
    assert torch.bfloat16 in seen
    for name in (name for name in library if name.endswith(("query.weight", "key.weight", "value.weight"))):
        cosine = torch.cosine_similarity(ours[name].flatten(), library[name].flatten(), dim=0)
        assert cosine > 0.9, name  # tokens nearly tie, and rounding chooses which of them gets the gradient


def test_a_saved_config_does_not_name_the_kernel(tmp_path: Path) -> None:
    splade_from(tiny_masked_lm(tmp_path / "model"), max_length=32).save_pretrained(str(tmp_path / "saved"))
    assert "spectra" not in json.dumps(json.loads((tmp_path / "saved" / "config.json").read_text()))
