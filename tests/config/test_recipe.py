"""Recipes: round trips, precedence, and the errors of misspelled keys."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_nsa.config.loss_sections import DistillSection, LossSection
from spectra_nsa.config.recipe import Recipe, load_recipe, recipe_key
from spectra_nsa.config.section import Section
from spectra_nsa.config.sections import (
    BackupSection,
    DataSection,
    ModelSection,
    MonitorSection,
    PretrainSection,
    TrainSection,
)
from spectra_nsa.config.sparse_section import SparseSection
from spectra_nsa.core.errors import SpectraError, UsageError

RECIPES = resources.files("spectra_nsa.config") / "recipes"
SECTIONS: dict[str, type[Section]] = {
    "model": ModelSection,
    "data": DataSection,
    "loss": LossSection,
    "distill": DistillSection,
    "train": TrainSection,
    "monitor": MonitorSection,
    "backup": BackupSection,
    "pretrain": PretrainSection,
    "sparse": SparseSection,
}


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_empty_recipe_is_the_defaults(tmp_path: Path) -> None:
    assert load_recipe() == load_recipe(write(tmp_path, "")) == Recipe()
    assert Recipe().train.batch == 64 and Recipe().train.lr == 1e-4 and Recipe().model.dropout == 0
    assert Recipe().train.checkpoint_every == Recipe().train.evaluate_every == 500 and Recipe().data.dev_rows == 200


def test_every_key_survives_yaml(tmp_path: Path) -> None:
    overrides = [
        "name=größe", "output=out", "model.start=folder", "model.max_length=64", "model.pooling=cls",
        "model.semantic_dims=[96, 48]", "model.dropout=null", "data.train=a.jsonl", "data.columns={anchor: q}",
        "data.split=train", "data.limit=5", "data.dev=b.jsonl", "data.dev_rows=7", "loss.temperature=0.07",
        "model.matryoshka=false", "loss.both_directions=false", "train.epochs=0.5", "train.max_steps=9",
        "train.schedule=cosine", "train.precision=fp32", "train.passes_per_batch=3",
        "train.gradient_checkpointing=true",
    ]  # fmt: skip
    recipe = load_recipe(None, overrides)
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe
    assert recipe.name == "größe" and recipe.model.semantic_dims == [96, 48] and recipe.data.columns == {"anchor": "q"}


@settings(deadline=None)  # the first example may meet a busy machine
@given(
    lr=st.floats(1e-8, 1.0),
    batch=st.integers(2, 4096),
    warmup=st.floats(0, 0.99),
    name=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12),
)
def test_any_recipe_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory, lr: float, batch: int, warmup: float, name: str | None
) -> None:
    recipe = Recipe(name=name, train=TrainSection(lr=lr, batch=batch, warmup=warmup))
    assert load_recipe(write(tmp_path_factory.mktemp("recipe"), recipe.to_yaml())) == recipe


def test_later_wins_preset_file_flags_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {size: M456}\ntrain: {batch: 4, warmup: 0.1, epochs: 2}\n")
    flags: dict[str, Any] = {"train.warmup": 0.2, "train.epochs": 5, "train.seed": None}
    recipe = load_recipe(path, ["train.epochs=6"], flags=flags)
    assert recipe.train.lr == 2e-4  # the preset
    assert recipe.train.batch == 4  # the file
    assert recipe.train.warmup == 0.2  # the flag
    assert recipe.train.epochs == 6  # the override
    assert recipe.train.seed == 0  # a flag that was not given says nothing


def test_a_size_from_a_flag_or_override_sets_its_defaults() -> None:
    assert load_recipe(None, ["model.size=M456"]).train.accumulation == 8
    assert load_recipe(None, flags={"model.size": "m456"}).train.accumulation == 8


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("2E-5", 2e-5), ("1", 1.0), ("0.001", 0.001), (".5", 0.5)],
)
def test_numbers_as_people_write_them(text: str, value: float) -> None:
    assert load_recipe(None, [f"train.lr={text}"]).train.lr == value


def test_a_value_may_hold_equals_signs_and_be_null() -> None:
    assert load_recipe(None, ["data.train=a=b.jsonl"]).data.train == "a=b.jsonl"
    assert load_recipe(None, ["model.dropout=null"]).model.dropout is None


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("modl=x", "model"),
        ("otput=x", "output"),
        ("train.lrr=1", "train.lr"),
        ("train.bacth=4", "train.batch"),
        ("train.warm_up=0.1", "train.warmup"),
        ("data.colums={}", "data.columns"),
        ("model.max_lenght=9", "model.max_length"),
        ("loss.temprature=1", "loss.temperature"),
        ("train.learning_rate=1", "train.lr"),
        ("train.leraning_rate=1", "train.lr"),
        ("train.batch_size=4", "train.batch"),
    ],
)
def test_a_misspelled_key_offers_the_nearest(override: str, nearest: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(UsageError, match=f"unknown recipe key '{key}'. Did you mean '{nearest}'") as caught:
        load_recipe(None, [override])
    section = key.partition(".")[0] if "." in key else None
    fields = SECTIONS[section].model_fields if section else Recipe.model_fields
    for name in fields:
        assert (f"{section}.{name}" if section else name) in str(caught.value)


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("trian.batch=3", "train.batch"),
        ("trian.bacth=3", "train.batch"),
        ("trian.learning_rate=3", "train.lr"),
        ("optim.learning_rate=3", "train.lr"),
        ("loss.tems.semantic.weight=1", "loss.terms.semantic"),
    ],
)
def test_a_misspelled_section_is_matched_apart_from_its_key(override: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean '{nearest}'"):
        load_recipe(None, [override])


def test_columns_as_text_say_the_form() -> None:
    with pytest.raises(UsageError, match=r"data\.columns='\{anchor: frage\}', or use the option --columns"):
        load_recipe(None, ["data.columns=anchor=frage"])


def test_the_key_of_a_name_without_its_section() -> None:
    assert recipe_key("lr") == recipe_key("learning_rate") == "train.lr"
    assert recipe_key("bogus") is None


def test_a_misspelled_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "train:\n  btach: 8\n")
    with pytest.raises(UsageError, match=r"recipe\.yaml: unknown recipe key 'train.btach'. Did you mean 'train.batch'"):
        load_recipe(path)


@pytest.mark.parametrize(
    "override",
    [
        "train.batch=many", "train.batch=1", "train.lr=0", "train.warmup=1", "train.schedule=linaer", "model.dropout=1",
        "train.precision=fp8", "data.limit=0", "model.max_length=2", "train.keep_checkpoints=0", "train=3",
        "model.semantic_dims=big", "train.epochs=0", "train.seed=-1",
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(UsageError) as caught:
        load_recipe(None, [override])
    assert key in str(caught.value) and value in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("override", ["train.lr", "=4", "no-such-file"])
def test_an_override_needs_a_key_and_a_value(override: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        load_recipe(None, [override])


def test_a_key_below_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match="name is not a section"):
        load_recipe(None, ["name=x", "name.y=1"])


def test_a_misspelled_size_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'M456'"):
        load_recipe(None, ["model.size=M465"])


def test_files_that_are_not_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe"):
        load_recipe(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match="a recipe is a mapping of sections"):
        load_recipe(write(tmp_path, "- 1\n- 2\n"))
    with pytest.raises(SpectraError, match="not readable YAML"):
        load_recipe(write(tmp_path, "train: {lr: [}\n"))


def test_sections_are_closed_and_frozen() -> None:
    for section in (*SECTIONS.values(), Recipe):
        assert section.model_config["extra"] == "forbid" and section.model_config["frozen"] is True
    with pytest.raises(ValueError):
        Recipe().train.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("file", sorted(RECIPES.iterdir(), key=lambda file: file.name), ids=lambda file: file.name)
def test_a_shipped_recipe_loads(file: Any) -> None:
    recipe = load_recipe(Path(str(file)))
    assert recipe.model.start or recipe.model.size
    assert recipe.train.checkpoint_every % recipe.train.evaluate_every == 0


def test_an_empty_section_is_defaults_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("train:\nmodel:\n  size: mini\n")
    assert load_recipe(tmp_path / "r.yaml").train.batch == 64
    for override in ("train=3", "train.lr=["):
        with pytest.raises(UsageError):
            load_recipe(None, ["model.size=M456", override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.pooling=median", "model.pooling"),
        ("model.semantic_dims=[0, -3]", "greater than 0"),
        ("model.semantic_dims=[]", "at least 1 item"),
        ("train.epochs=.inf", "finite"),
        ("train.evaluate_every=300", "must divide checkpoint_every (500)"),
        ("train=4", "a section of keys and values"),
        ("loss.terms.query_flops=0", "Set its weight: loss.terms.query_flops.weight=0."),
        ("loss.terms.semantic=0.5", "Set its weight: loss.terms.semantic.weight=0.5."),
    ],
)
def test_invalid_values_are_refused(override: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        load_recipe(None, [override])


def test_a_name_may_be_a_number() -> None:
    assert load_recipe(None, ["name=123"]).name == "123"


def test_poolings_are_those_of_the_model() -> None:
    from typing import get_args

    from spectra_nsa.heads.kinds import POOLINGS

    annotation = ModelSection.model_fields["pooling"].annotation
    assert {name for part in get_args(annotation) for name in get_args(part)} == set(POOLINGS)


def test_a_term_keeps_its_own_defaults() -> None:
    terms = load_recipe(None, ["loss.terms.anchor.weight=2", "loss.terms.bridge.train_encoder=true"]).loss.terms
    assert (terms.anchor.weight, terms.anchor.train_encoder) == (2.0, False)
    assert (terms.bridge.weight, terms.bridge.train_encoder) == (1.0, True)


@pytest.mark.parametrize(
    ("key", "home"),
    [
        ("lr", "train.lr"),
        ("learning_rate", "train.lr"),
        ("leraning_rate", "train.lr"),
        ("num_train_epochs", "train.epochs"),
        ("batch_size", "train.batch"),
        ("max_seq_length", "model.max_length"),
        ("temperature", "loss.temperature"),
        ("data.batch_size", "train.batch"),
        ("train.dropout", "model.dropout"),
    ],
)
def test_a_key_without_its_section_or_in_another_names_its_section(key: str, home: str) -> None:
    with pytest.raises(UsageError, match=f"unknown recipe key '{key}'. Did you mean '{home}'"):
        load_recipe(None, [f"{key}=1"])


@pytest.mark.parametrize(
    ("name", "ours"),
    [("multiple_negatives_ranking", "semantic"), ("mnrl", "semantic"), ("cosine_similarity", "cosine")],
)
def test_the_textbook_name_of_a_loss_offers_ours(name: str, ours: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean 'loss.terms.{ours}.weight'"):
        load_recipe(None, [f"loss.terms.{name}.weight=1"])


def test_the_margins_of_the_textbook_losses_can_be_changed() -> None:
    terms = load_recipe(None, ["loss.terms.triplet.margin=0.4", "loss.terms.contrastive.weight=1"]).loss.terms
    assert (terms.triplet.margin, terms.contrastive.margin, terms.contrastive.weight) == (0.4, 0.5, 1)
    with pytest.raises(UsageError, match="greater than 0"):
        load_recipe(None, ["loss.terms.triplet.margin=0"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.batch=many", "train.batch must be a whole number, not 'many'"),
        ("train.parts=ffn", r"train.parts is 'ffn': write a list, as in train.parts=\[ffn\]"),
        ("train.batch=1.5", "train.batch must be a whole number, not 1.5"),
        ("train.lr=fast", "train.lr must be a number, not 'fast'"),
    ],
)
def test_a_value_of_another_type_says_what_is_wanted(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(None, [word])
