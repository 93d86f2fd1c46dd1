"""Computed sizes against the built model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from spectra_nsa.config.presets import NAMES, load_preset
from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.encoder.kinds import ATTENTIONS, FFNS, MIXERS, NORMS, encoder_weights, layer_activations
from spectra_nsa.encoder.spec import POSITIONS
from spectra_nsa.heads.kinds import POOLINGS
from spectra_nsa.heads.outputs import NamedOutputs
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.models.size import flops_per_token, inspect_model, spec_of
from spectra_nsa.models.warm_start import warm_start
from tests.builders import bert_folder

SMALL: dict[str, Any] = {"vocab_size": 90, "hidden_size": 48, "num_hidden_layers": 5, "num_attention_heads": 4}
CHANGES: list[dict[str, Any]] = [
    *({"attention": "spectral", "mixer": mixer, "spectral_dim": 24} for mixer in MIXERS),
    *({"attention": attention} for attention in ATTENTIONS),
    *({"ffn": ffn, "intermediate_size": 100} for ffn in FFNS),
    {"ffn": "moe", "experts": {"count": 4, "top_k": 2, "sliced": True, "every": 2, "shared": True, "kind": "geglu"}},
    {"ffn": "moe", "experts": {"count": 4, "router": "hash", "first": 3}},
    *({"norm": norm} for norm in NORMS),
    *({"position": position, "type_vocab_size": 0} for position in POSITIONS),
    *({"pooling": pooling} for pooling in POOLINGS),
    {"depth_mix": True},
    {"depth_mix": True, "num_hidden_layers": 1},
    {"layer_routing": True},
    {"pooling_kinds": ["cls", "attention", "entropy"]},
    {"adapters": 3, "adapter_size": 10, "pooling": "mean_max"},
    {"entity": True},
    {"semantic_projection": True, "semantic_dims": [30, 20]},
    {"semantic_projection": True, "semantic_dims": [32], "semantic_bias": False, "pooling": "mean_max"},
    {"anomaly_prototypes": 7, "anomaly_method": "prototypes", "anomaly_calibration": 5},
]


def built(spec: ModelSpec) -> NamedOutputs:
    with torch.device("meta"):
        return NamedOutputs(spec)


def count(*modules: nn.Module | None) -> int:
    return sum(weight.numel() for module in modules if module is not None for weight in module.parameters())


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_parameters_of_each_part_match_the_built_model(changes: dict[str, Any]) -> None:
    spec = ModelSpec(**(SMALL | changes))
    model = built(spec)
    layers: list[Any] = list(model.encoder.layers)
    attention = count(*(layer.attention.qkv for layer in layers), *(layer.attention.out for layer in layers))
    parts = {
        "embeddings": count(model.encoder.embeddings),
        "attention": attention,
        "spectral path": count(*(layer.attention for layer in layers)) - attention,
        "ffn": count(*(layer.ffn for layer in layers)),
        "norms": count(*layers, model.encoder.final_norm)
        - count(*(part for x in layers for part in (x.attention, x.ffn))),
        "depth mixing": count(model.encoder.depth),
        "pooling": count(model.pooling),
        "expert pooling": count(model.pooling_mixture, model.adapters),
        "semantic head": count(model.semantic),
        "entity head": count(model.entity, model.fusion),
        "ranking head": count(model.ranking),
        "anchors": count(model.anchors),
        "hash bridge": count(model.bridge),
        "anomaly head": count(model.anomaly),
    }
    facts = inspect_model(spec)
    assert facts["parts"] == {name: number for name, number in parts.items() if number}
    assert facts["parameters"] == count(model)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_flops_include_every_linear_map_of_the_encoder(changes: dict[str, Any]) -> None:
    spec = ModelSpec(**(SMALL | changes))
    encoder = built(spec).encoder
    matrices = sum(part.weight.numel() for part in encoder.modules() if isinstance(part, nn.Linear))
    for part in encoder.modules():
        if isinstance(part, ExpertFFN):
            matrices += sum(weight[: part.spec.top_k].numel() for weight in part.experts() if weight.ndim == 3)
            matrices += part.router.weight.numel() if part.router.weight is not None else 0
    assert flops_per_token(spec, 10.5) == 2 * matrices + 4 * 10.5 * 48 * spec.num_hidden_layers
    assert matrices == sum(part.matrices for part in encoder_weights(spec.encoder_spec()).values())


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_of_each_preset_match_the_built_model(name: str) -> None:
    spec = ModelSpec(**load_preset(name).model)
    assert inspect_model(spec)["parameters"] == count(built(spec))
    assert layer_activations(spec.encoder_spec()) > 9 * spec.hidden_size


@pytest.mark.parametrize(
    "changes", [{}, {"pooling": "cls", "normalize": False}, {"pooling": ("mean", "max")}, {"dense": 24}], ids=str
)
def test_a_checkpoint_has_the_shape_of_its_warm_start(tmp_path: Path, changes: dict[str, Any]) -> None:
    activation = {"activation": nn.Identity()} if "dense" in changes else {}
    folder = bert_folder(tmp_path, **changes, **activation)
    started = warm_start(folder)
    assert spec_of(str(folder)) == ModelSpec.from_config(started.spec.to_dict())
    assert started.spec.max_length == 48
    started.save(str(tmp_path / "saved"))
    assert inspect_model(spec_of(str(folder))) == inspect_model(spec_of(str(tmp_path / "saved")))


def test_the_shape_names_what_texts_choose() -> None:
    choosing = {"pooling_kinds": ["max", "cls"], "adapters": 3, "adapter_size": 8, "layer_routing": True}
    shape = inspect_model(ModelSpec(**(SMALL | choosing)))["shape"]
    assert (shape["pooling_kinds"], shape["adapters"], shape["layer_routing"]) == ("max, cls", "3 of width 8", True)
    assert not {"pooling_kinds", "adapters", "layer_routing", "experts"} & set(
        inspect_model(ModelSpec(**SMALL))["shape"]
    )


def test_old_pooling_files_name_a_mode_by_a_key_of_its_own(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path, pooling="cls")
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert spec_of(str(folder)).pooling == "cls"


def test_inspecting_a_preset_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from spectra_nsa.models.size import inspect_model, spec_of; inspect_model(spec_of('M456'));"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_token_passes_one_network_of_smear() -> None:
    shapes = [ModelSpec(**SMALL, ffn="moe", experts={"count": 4, "router": router}) for router in ("smear", "text")]
    assert flops_per_token(shapes[0], 10) == flops_per_token(shapes[1], 10)
