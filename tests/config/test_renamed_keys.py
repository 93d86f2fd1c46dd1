"""Recipes written with former key names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from spectra_nsa.config.overrides import set_value
from spectra_nsa.config.recipe import Recipe, load_recipe, with_values
from spectra_nsa.config.renamed_keys import RENAMED
from spectra_nsa.core.errors import UsageError

VALUES: dict[str, Any] = {
    "watch.rows": 7, "model.words": "a", "model.layers": [0], "loss.terms.anchor.joined": True, "train.clip": 2.0,
    "train.gate_lr": 3.0, "train.length_groups": 2, "train.cached_batch": 64, "train.fit_codes": 600,
    "pretrain.also": ["b"], "backup.wait": 5.0,
}  # fmt: skip


def value_of(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def renamed(key: str) -> str:
    for former, current in RENAMED.items():
        key = key.replace(former.replace("*", "anchor"), current.replace("*", "anchor"))
    return key


def test_every_former_name_is_tried() -> None:
    assert len(VALUES) == len(RENAMED)


@pytest.mark.parametrize("key", VALUES)
def test_a_former_name_is_read_with_a_warning(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, values = tmp_path / "recipe.yaml", {}
    set_value(values, key, VALUES[key])
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    override = f"{key}={yaml.safe_dump(VALUES[key], default_flow_style=True).splitlines()[0]}"
    pretraining = Recipe.model_validate({"pretrain": {}})
    for read in (
        lambda: load_recipe(file),
        lambda: load_recipe(None, [override]),
        lambda: load_recipe(None, flags={key: VALUES[key]}),
        lambda: with_values(pretraining, {key: VALUES[key]}),
    ):
        assert value_of(read(), renamed(key)) == VALUES[key]
        former = "watch" if key.startswith("watch.") else key  # the section is named, not its keys
        assert f"{former} is now called {renamed(former)}\n" in capsys.readouterr().err


def test_an_override_replaces_a_former_name_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("train: {clip: 2}", encoding="utf-8")
    assert load_recipe(file, ["train.max_grad_norm=3"]).train.max_grad_norm == 3
    assert load_recipe(file, ["train.clip=4"]).train.max_grad_norm == 4


def test_both_names_in_one_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("train: {clip: 2, max_grad_norm: 3}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"remove train\.clip"):
        load_recipe(file)
