"""Every shipped size: it loads, it builds, and it is as large as its name says."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch

from spectra_nsa.config.presets import DEFAULT, NAMES, load_preset
from spectra_nsa.config.sections import TrainSection
from spectra_nsa.core.errors import UsageError
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.encoder.kinds import encoder_weights
from spectra_nsa.heads.spec import ModelSpec
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.fresh import fresh_config
from spectra_nsa.models.model import SpectraModel

MILLIONS = {"M456": 458, "M600": 600, "M700": 700, "M1B": 1000, "nexus-240m": 240, "nexus-mini": 6.66, "mini": 23.1}
LARGE = ("M456", "M600", "M700", "M1B")


def test_the_names_are_the_files() -> None:
    folder = resources.files("spectra_nsa.config") / "presets"
    assert sorted(NAMES) == sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())
    assert DEFAULT == "M456" and DEFAULT in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_builds(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name and preset.about
    assert set(preset.model) <= set(SpectraConfig().to_dict()), "a field that the config does not know"
    with torch.device("meta"):
        model = SpectraModel(SpectraConfig(**preset.model))
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    if name in MILLIONS:
        assert size == pytest.approx(MILLIONS[name], rel=0.01)
    assert model.config.max_length is not None
    assert model.config.max_length <= model.config.max_position_embeddings


@pytest.mark.parametrize("name", NAMES)
def test_training_defaults_are_recipe_keys(name: str) -> None:
    section = TrainSection(**load_preset(name).train)
    assert {key: getattr(section, key) for key in load_preset(name).train} == load_preset(name).train


def test_the_default_size_as_promised() -> None:
    preset = load_preset("M456")
    assert preset.train == {"lr": 2e-4, "batch": 8, "accumulation": 8, "warmup": 0.08, "epochs": 3}
    assert preset.model["max_length"] == 160
    assert (preset.model["hidden_size"], preset.model["num_hidden_layers"], preset.model["num_attention_heads"]) == (
        1024, 24, 16,
    )  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_the_large_sizes_share_a_shape(name: str) -> None:
    model = load_preset(name).model
    assert (model["norm"], model["position"], model["ffn"]) == ("pre", "rope", "geglu")
    assert model["semantic_dims"] == [768, 512, 256]


@pytest.mark.parametrize(
    ("name", "shape"),
    [("mini", (384, 6, 12)), ("small", (128, 4, 4)), ("medium", (256, 6, 8)), ("large", (512, 12, 16))],
)
def test_the_small_sizes_are_bert(name: str, shape: tuple[int, int, int]) -> None:
    model = load_preset(name).model
    assert (model["hidden_size"], model["num_hidden_layers"], model["num_attention_heads"]) == shape
    assert (model["norm"], model["position"], model["ffn"], model["attention"]) == ("post", "absolute", "gelu", "plain")


def test_the_small_edge_size_is_a_narrow_large_one() -> None:
    numbers = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    large, small = (load_preset(name).model for name in ("nexus-240m", "nexus-mini"))
    assert all(small[name] < large[name] for name in numbers)
    assert large["hidden_size"] / large["num_attention_heads"] == small["hidden_size"] / small["num_attention_heads"]
    dims = {"semantic_dims": 0} | dict.fromkeys(numbers, 0)
    assert large | dims == small | dims


def test_the_edge_size() -> None:
    model = load_preset("nexus-240m").model
    assert (model["norm"], model["position"], model["ffn"]) == ("pre", "absolute", "geglu")
    assert model["vocab_size"] == 48_000 and model["max_length"] == 128


def test_case_does_not_matter_and_a_misspelling_offers_the_nearest() -> None:
    assert load_preset("m1b").name == "M1B" and load_preset("NEXUS-240M").name == "nexus-240m"
    with pytest.raises(UsageError, match=r"unknown size preset 'M465'. Did you mean 'M456'"):
        load_preset("M465")


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_twins_with_experts_have_as_many_parameters_at_work_or_in_all(size: str) -> None:
    """Counts the encoder's matrices without the embeddings; the rest is the router."""

    def parameters(name: str) -> tuple[int, int]:
        parts = encoder_weights(ModelSpec(**load_preset(name).model).encoder_spec())
        parts.pop("embeddings")
        return sum(part.matrices for part in parts.values()), sum(part.total for part in parts.values())

    (active, total), (twin_active, _), (_, twin_total) = (parameters(size + end) for end in ("", "-moe", "-moe-total"))
    assert twin_active == pytest.approx(active, rel=0.01)
    assert twin_total == pytest.approx(total, rel=0.02)
    assert parameters(f"{size}-moe")[1] > 3 * total and parameters(f"{size}-moe-total")[0] < 0.6 * active


def test_the_experts_of_a_preset_can_be_changed(minilm: Path) -> None:
    config, _ = fresh_config("small-moe", tokenizer=str(minilm), experts={"count": 4})
    experts = ExpertSpec.from_config(config.experts)
    assert (experts.count, experts.first, experts.kind) == (4, 1, "gelu")
    config, _ = fresh_config("small", tokenizer=str(minilm), ffn="moe", experts={"count": 2})
    assert ExpertSpec.from_config(config.experts).count == 2
    with pytest.raises(UsageError, match=r"set model\.ffn=moe"):
        fresh_config("small", tokenizer=str(minilm), experts={"count": 2})
