"""Experts that start as copies of a feed-forward network, and a dense model from one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spectra_nsa as sp
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.models.experts.upcycle import make_dense, set_experts
from spectra_nsa.models.fresh import fresh_model
from spectra_nsa.models.saved import open_saved
from spectra_nsa.training.init.start import open_start
from spectra_nsa.workflows.moe.dense import recover_dense
from tests.builders import same_weights

TEXTS = ["open the file and read it", "close a socket", "a", "sort the list of numbers in place, whatever may come"]
CHANGES: list[dict[str, Any]] = [
    {},
    {"top_k": 2},
    {"top_k": 2, "sliced": True},
    {"router": "text", "every": 2},
    {"router": "smear"},
    {"router": "hash", "first": 2},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_real_vectors_stay_through_upcycling_saving_and_recovery(
    minilm: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    dense = sp.warm_start(minilm).encode(TEXTS)
    model = sp.warm_start(minilm, ffn="moe", experts={"count": 4} | change)
    vectors = model.encode(TEXTS)
    assert np.abs(vectors - dense).max() < 1e-6
    model.save_pretrained(str(tmp_path / "m"))
    again = sp.load(tmp_path / "m")
    assert same_weights(again, model)
    # The last bit of a product may depend on where in memory the weights are.
    assert np.abs(again.encode(TEXTS) - vectors).max() < 1e-6
    light = open_saved(tmp_path / "m")
    assert light is not None and np.abs(light.encode(TEXTS) - vectors).max() < 1e-6
    make_dense(again, expert=1)
    assert again.spec.ffn == "gelu" and np.abs(again.encode(TEXTS) - dense).max() < 1e-6


@pytest.mark.parametrize("sliced", [False, True])
def test_gated_networks_are_copied_and_recovered(sliced: bool) -> None:
    change = {"norm": "pre", "position": "rope", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    torch.manual_seed(0)
    model = fresh_model("small", **(change | {"ffn": "geglu"}))
    before, weights = model.encode(TEXTS), {n: w.clone() for n, w in model.spectra.state_dict().items()}
    set_experts(model, {"count": 4, "top_k": 2, "sliced": sliced})
    assert model.spec.experts is not None and model.spec.experts["kind"] == "geglu"
    assert np.abs(model.encode(TEXTS) - before).max() < 1e-6
    make_dense(model)
    assert all(torch.equal(value, weights[name]) for name, value in model.spectra.state_dict().items())


def test_one_expert_becomes_the_network() -> None:
    model = fresh_model(
        "small", hidden_size=32, intermediate_size=64, num_hidden_layers=1, ffn="moe", experts={"count": 3}
    )
    layer: Any = model.spectra.encoder.layers[0].ffn
    with torch.no_grad():
        for weight in layer.experts():
            weight.normal_()
    wanted = layer.up_proj[2].clone(), layer.down_proj_bias[2].clone()
    make_dense(model, expert=2)
    network: Any = model.spectra.encoder.layers[0].ffn
    assert torch.equal(network.up.weight, wanted[0]) and torch.equal(network.down.bias, wanted[1])


def test_a_recipe_upcycles_checkpoints_and_saved_models(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bert()
    saved = tmp_path / "saved"
    sp.warm_start(folder).save_pretrained(str(saved))
    for start in (folder, saved):
        keys = ["model.ffn=moe", "model.experts.count=4", "model.experts.top_k=2"]
        model = open_start(load_recipe(None, [f"model.start={start}", *keys]))
        assert model.spec.experts is not None and model.spec.experts["count"] == 4
        assert np.abs(model.encode(TEXTS) - sp.warm_start(folder).encode(TEXTS)).max() < 1e-6
    model.save_pretrained(str(tmp_path / "moe"))
    again = open_start(load_recipe(None, [f"model.start={tmp_path / 'moe'}", "model.experts.dropout=0.2"]))
    assert again.spec.experts is not None and again.spec.experts["dropout"] == 0.2
    assert np.array_equal(again.encode(TEXTS), model.encode(TEXTS))


def test_layers_are_dropped_before_experts_come(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    start = make_bert(num_hidden_layers=4)
    keys = [f"model.start={start}", "model.ffn=moe", "model.experts.every=2"]
    model = open_start(load_recipe(None, [*keys, "model.keep_layers=[0,1,3]"]))
    assert model.spec.encoder_spec().expert_layers == [0, 2]
    model.save_pretrained(str(tmp_path / "moe"))
    with pytest.raises(SpectraError, match="which layers have experts"):
        open_start(load_recipe(None, [f"model.start={tmp_path / 'moe'}", "model.keep_layers=[0,1]"]))


def test_from_scratch_experts_have_the_presets_kind() -> None:
    recipe = load_recipe(None, ["model.size=small", "model.ffn=moe", "model.experts.count=4"])
    model = open_start(recipe)
    assert model.spec.experts is not None and model.spec.experts["kind"] == "gelu"
    first = model.spectra.encoder.layers[0].ffn.up_proj.std()
    assert 0.018 < float(first) < 0.022, "BERT's initial values"


def test_the_command_writes_a_dense_model(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_bert()
    sp.warm_start(folder, ffn="moe", experts={"count": 4}).save_pretrained(str(tmp_path / "moe"))
    facts = recover_dense(str(tmp_path / "moe"), tmp_path / "dense", expert=3)
    assert facts["parameters"]["after"] < facts["parameters"]["before"]
    dense = sp.load(tmp_path / "dense")
    assert dense.spec.ffn == "gelu" and np.array_equal(dense.encode(TEXTS), sp.warm_start(folder).encode(TEXTS))
    with pytest.raises(SpectraError, match="no experts"):
        recover_dense(str(tmp_path / "dense"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_cannot_be_upcycled_is_refused(make_bert: Callable[..., Path]) -> None:
    folder = make_bert()
    with pytest.raises(UsageError, match="kind=geglu"):
        sp.warm_start(folder, ffn="moe", experts={"kind": "geglu"})
    with pytest.raises(UsageError, match="plain feed-forward"):
        sp.warm_start(folder, ffn="moe", experts={"count": 1})
    with pytest.raises(UsageError, match=r"model\.ffn=moe"):
        sp.warm_start(folder, experts={"count": 4})
    for start in (f"model.start={folder}", "model.size=small"):
        with pytest.raises(UsageError, match=r"model\.ffn=moe"):
            open_start(load_recipe(None, [start, "model.experts.count=4"]))
    model = sp.warm_start(folder, ffn="moe", experts={"count": 4})
    with pytest.raises(SpectraError, match=r"experts\.count is 4"):
        set_experts(model, {"count": 8})
    with pytest.raises(UsageError, match="0 to 3"):
        make_dense(model, expert=4)
    with pytest.raises(SpectraError, match="no experts"):
        make_dense(sp.warm_start(folder))
    with pytest.raises(SpectraError, match="shared"):
        make_dense(sp.warm_start(folder, ffn="moe", experts={"shared": True}))
