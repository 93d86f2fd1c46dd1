"""Batches do not change what experts compute, except where rounding decides between two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spectra_nsa as sp
from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.evaluation.statistics import StatisticsTask
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.models.experts.flips import flip_rate
from tests.builders import WORDS

CLEAR = 1e-5  # a margin that rounding does not bridge
ROUTERS = ("token", "text", "text_layer", "smear", "hash", "text_hash")
TEXT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


def model_with(start: Path, **experts: Any) -> Any:
    """Returns a model whose experts differ and whose gates are decided."""
    model = sp.warm_start(start, ffn="moe", experts={"count": 4} | experts)
    generator = np.random.default_rng(0)
    for layer in model.modules():
        if isinstance(layer, ExpertFFN):
            weights = [*layer.experts(), *([] if layer.router.weight is None else [layer.router.weight])]
            for weight in weights:
                weight.data += 0.3 * weight.new_tensor(generator.normal(size=weight.shape))
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from tests.builders import bert_folder

    start = bert_folder(tmp_path_factory.mktemp("start"))
    kinds = {router: {"router": router} for router in ROUTERS}
    kinds |= {"two": {"top_k": 2}, "slices": {"top_k": 2, "sliced": True}}
    return {name: model_with(start, **change) for name, change in kinds.items()}


@settings(max_examples=5, deadline=None)
@given(texts=st.lists(TEXT, min_size=2, max_size=12))
def test_a_text_with_a_clear_choice_has_the_same_vector_in_any_batch(models: dict[str, Any], texts: list[str]) -> None:
    for name, model in models.items():
        together = model.encode(texts, outputs=["embedding", "router_margin"])
        for row, text in enumerate(texts):
            if together["router_margin"][row].min() > CLEAR:
                alone = model.encode([text], outputs=["embedding"])["embedding"][0]
                assert np.abs(alone - together["embedding"][row]).max() < 1e-6, name


def test_unclear_choices_are_rare(models: dict[str, Any]) -> None:
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(WORDS, size=generator.integers(1, 12))) for _ in range(2000)]
    for name, model in models.items():
        margins = model.encode(texts, outputs=["router_margin"], batch_size=64)["router_margin"]
        assert (margins.min(1) <= CLEAR).mean() <= 1e-3, name
        assert flip_rate(model, texts, "fp32") == 0, name


def test_an_evaluation_reports_how_often_choices_flip(models: dict[str, Any], make_bert: Callable[..., Path]) -> None:
    task = StatisticsTask("words", [f"{a} {b}" for a in WORDS[:8] for b in WORDS[:8]])
    figures = {r.metric: r.value for r in task.run(DenseSystem("moe", models["token"])).results}
    assert figures["router_flips_fp32"] == 0 and 0 <= figures["router_flips_bf16"] < 0.05
    plain = task.run(DenseSystem("dense", sp.warm_start(make_bert()))).results
    assert not any(r.metric.startswith("router") for r in plain)
