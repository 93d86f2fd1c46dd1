"""Names in YAML stay as they are written, and a repeated key is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.yaml_values import annotation_of, is_text
from spectra_nsa.core.errors import UsageError

RECIPE = """
name: 007
data: {train: 2024, columns: {anchor: 1, positive: yes, negative: 1e5}, group: 2024-01-01, dev: null}
distill: {scores: [0, on]}
train: {lr: 1.0e-4, max_steps: 5, gradient_checkpointing: yes}
"""


def test_names_in_a_recipe_are_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert (recipe.name, recipe.data.train, recipe.data.group, recipe.data.dev) == ("007", "2024", "2024-01-01", None)
    assert recipe.data.columns == {"anchor": "1", "positive": "yes", "negative": "1e5"}
    assert recipe.distill.scores == ["0", "on"]
    assert (recipe.train.lr, recipe.train.max_steps, recipe.train.gradient_checkpointing) == (1e-4, 5, True)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_names_in_overrides_are_text() -> None:
    words = ["data.columns={anchor: 1, positive: no}", "data.group=1e5", "data.columns.negative=007", "train.lr=1e-5"]
    recipe = load_recipe(None, [*words, "distill.scores=[2024]", "data.split=null", "model.dropout=null"])
    assert recipe.data.columns == {"anchor": "1", "positive": "no", "negative": "007"}
    assert (recipe.data.group, recipe.data.split, recipe.distill.scores) == ("1e5", None, ["2024"])
    assert recipe.train.lr == 1e-5 and recipe.model.dropout is None


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("train:\n  lr: 1\ndata: {}\ntrain: {}\n")
    with pytest.raises(UsageError, match=r"recipe\.yaml, line 4: the key 'train' appears twice"):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match="the key 'anchor' appears twice"):
        load_recipe(None, ["data.columns={anchor: a, anchor: b}"])


def test_the_type_of_a_key() -> None:
    assert is_text(annotation_of(Recipe, "data.columns.anchor")) and is_text(annotation_of(Recipe, "name"))
    for key in ("train.lr", "data.columns", "distill.scores", "model.pooling", "gone", "train.gone.deeper"):
        assert not is_text(annotation_of(Recipe, key))
