"""Every part and head: an exact no-op at first, trainable, batch-invariant, saved completely, and free when off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spectra_nsa as sp
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.encoder.gates import Gate, TextGate
from spectra_nsa.heads.expert_pooling import Adapters
from spectra_nsa.heads.kinds import OUTPUTS
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from tests.builders import same_weights

TEXTS = [
    "open the file and read it",
    "close a socket",
    "a",
    "sort the list of numbers in place and return nothing at all, whatever the caller may think of that",
    "def read(path): return open(path).read()",
]
PARTS: dict[str, dict[str, Any]] = {
    "spectral": {"spectral": True},
    "conv": {"spectral": True, "mixer": "conv"},
    "every-3": {"spectral": True, "entropy_every": 3},
    "depth": {"depth_mix": True},
    "entity": {"entity": True},
    "attention pooling": {"pooling": "attention"},
    "entropy pooling": {"pooling": "entropy"},
    "experts": {"ffn": "moe", "experts": {"count": 4}},
    "two experts": {"ffn": "moe", "experts": {"count": 4, "top_k": 2, "shared": True, "every": 2}},
    "slices": {"ffn": "moe", "experts": {"count": 4, "top_k": 2, "sliced": True}},
    "experts of texts": {"ffn": "moe", "experts": {"count": 4, "router": "text"}},
    "mean of experts": {"ffn": "moe", "experts": {"count": 4, "router": "smear"}},
    "layer routing": {"layer_routing": True},
    "further poolings": {"pooling_kinds": ["cls", "max", "attention", "entropy"]},
    "adapters": {"adapters": 4, "adapter_size": 16},
    "all": {
        "spectral": True, "layer_routing": True, "entity": True, "pooling": "entropy", "pooling_kinds": ["mean"],
        "adapters": 2,
    },
}  # fmt: skip
RAW = tuple(name for name in OUTPUTS if name not in ("anomaly_p", "is_ood"))


def activate(model: SpectraSentenceTransformer) -> SpectraSentenceTransformer:
    """Opens every gate and gives every head nontrivial weights."""
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, Gate | TextGate):
            torch.nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, Adapters):
            torch.nn.init.normal_(module.down, std=0.1)
        if isinstance(module, ExpertFFN):
            for weight in module.experts():
                weight.data += 0.05 * torch.randn_like(weight) * weight.std()
    torch.nn.init.normal_(model.spectra.ranking.change.weight, std=0.05)
    torch.nn.init.uniform_(model.spectra.entity.prior.idf)
    return model


@pytest.fixture(scope="module")
def plain(minilm: Path) -> np.ndarray:
    """Returns the texts' vectors from a model without optional parts."""
    return sp.warm_start(minilm).encode(TEXTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_new_part_changes_nothing_at_first(minilm: Path, plain: np.ndarray, tmp_path: Path, part: str) -> None:
    model = sp.warm_start(minilm, **PARTS[part])
    fresh = model.encode(TEXTS)
    # A weighted mean with equal weights sums in a different order, and experts multiply other numbers of rows at once.
    exact = not PARTS[part].keys() & {"pooling", "ffn"}
    assert np.array_equal(plain, fresh) if exact else np.abs(plain - fresh).max() < 1e-6
    model.save_pretrained(str(tmp_path / "m"))
    again = sp.load(tmp_path / "m")
    # The last bit of a product may depend on where in memory the weights are.
    assert same_weights(again, model) and np.abs(again.encode(TEXTS) - fresh).max() < 1e-6


@pytest.mark.parametrize("part", PARTS)
def test_an_activated_part_is_batch_invariant_and_saved_completely(
    minilm: Path, plain: np.ndarray, tmp_path: Path, part: str
) -> None:
    model = activate(sp.warm_start(minilm, **PARTS[part]))
    batched = model.encode(TEXTS, outputs=RAW)
    assert np.abs(batched["embedding"] - plain).max() > 1e-4, "an activated part must change the vectors"
    for row, text in enumerate(TEXTS):
        single = model.encode([text], outputs=RAW)
        for name in set(RAW) - {"fast"}:
            actual, expected = single[name][0], batched[name][row]
            assert np.abs(actual - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max()), name
    model.save_pretrained(str(tmp_path / "m"))
    again = sp.load(tmp_path / "m")
    assert same_weights(again, model)
    reloaded = again.encode(TEXTS, outputs=RAW)
    for name in set(RAW) - {"fast"}:
        assert np.allclose(batched[name], reloaded[name], rtol=1e-5, atol=1e-6), name


def test_shapes_and_dtypes_of_all_outputs(minilm: Path) -> None:
    outputs = sp.warm_start(minilm).encode(TEXTS, outputs=RAW, truncate_dim=128)
    shapes = {name: (array.shape, array.dtype.name) for name, array in outputs.items()}
    assert shapes == {
        "embedding": ((5, 128), "float32"),
        "semantic": ((5, 128), "float32"),
        "entity": ((5, 192), "float32"),
        "ranking": ((5, 384), "float32"),
        "anchor64": ((5, 64), "float32"),
        "fast": ((5, 32), "uint8"),
        "fast_logits": ((5, 256), "float32"),
        "anomaly": ((5,), "float32"),
    }
    for name in ("embedding", "semantic", "entity", "ranking"):
        assert np.allclose(np.linalg.norm(outputs[name], axis=1), 1, atol=1e-5)
    assert np.array_equal(np.unpackbits(outputs["fast"], axis=1), outputs["fast_logits"] > 0)


def test_ranking_starts_as_the_semantic_vector(minilm: Path) -> None:
    outputs = sp.warm_start(minilm).encode(TEXTS, outputs=["semantic", "ranking"])
    assert np.allclose(outputs["semantic"], outputs["ranking"], atol=1e-6)


def test_the_error_for_a_p_value_before_the_fit_names_the_remedy(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert())
    for name in ("anomaly_p", "is_ood"):
        with pytest.raises(SpectraError, match="spectra anomaly fit"):
            model.encode(TEXTS, outputs=[name])


def test_outputs_that_are_not_requested_are_not_computed(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert())
    called: list[str] = []
    for name in ("entity", "ranking", "anchors", "bridge", "anomaly", "fusion"):
        getattr(model.spectra, name).register_forward_hook(lambda *_, name=name: called.append(name))
    model.encode(TEXTS)
    assert called == []
    model.encode(TEXTS, outputs=["anchor64"])
    assert called == ["anchors"]
    assert not any("mixer" in name or "depth" in name for name, _ in model.spectra.named_parameters())


def test_a_switched_off_part_has_no_influence(make_bert: Callable[..., Path]) -> None:
    model = sp.warm_start(make_bert())
    before = model.encode(TEXTS)
    with torch.no_grad():
        for part in (model.spectra.entity, model.spectra.fusion, model.spectra.ranking, model.spectra.bridge):
            for weight in part.parameters():
                weight.add_(1.0)
    assert np.array_equal(model.encode(TEXTS), before)


def test_a_detached_output_trains_only_its_head(make_bert: Callable[..., Path]) -> None:
    model = activate(sp.warm_start(make_bert())).train()
    features: dict[str, Any] = model.preprocess(TEXTS)
    for detached in ((), ("anchor64", "entity", "fast_logits", "ranking")):
        model.zero_grad()
        names = ("anchor64", "entity", "fast_logits", "ranking")
        out = model(features | {"spectra_outputs": names, "spectra_detached": detached})
        sum(out[name].square().sum() + out[name].sum() for name in names).backward()
        reached = any(weight.grad is not None for weight in model.spectra.encoder.parameters())
        assert reached == (not detached)
        assert model.spectra.anchors.anchors.weight.grad is not None


def test_bf16_is_invariant_within_its_tolerance(minilm: Path) -> None:
    model = activate(sp.warm_start(minilm, spectral=True, depth_mix=True, entity=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batched = model.encode(TEXTS)
        single = np.concatenate([model.encode([text]) for text in TEXTS])
    assert (batched * single).sum(1).min() > 0.999


def test_bf16_outputs_are_float32(make_bert: Callable[..., Path]) -> None:
    model = activate(sp.warm_start(make_bert(), entity=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model.encode_query(TEXTS, outputs=RAW)
    assert {name: value.dtype.name for name, value in outputs.items() if value.dtype != np.float32} == {"fast": "uint8"}
