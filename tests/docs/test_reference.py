"""The generated reference: every key, every command and every public name is in it, and the pages are current."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import spectra_nsa
from spectra_nsa.config.recipe import Recipe
from tests.cli.test_main import FLAGS

ROOT = Path(__file__).parents[2]
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))
RECIPE, CLI, PYTHON = (GENERATE["PARTS"][name]() for name in ("recipe", "cli", "python"))


@pytest.mark.parametrize("page", ["recipe", "cli", "python"])
def test_the_pages_are_current(page: str) -> None:
    written = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
    assert written == GENERATE["filled"](written, GENERATE["WITHOUT_SITE"]), "run python docs/generate.py"


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields every dotted key of a recipe; an entry of `loss.terms` counts as one key."""
    for name, value in values.items():
        if isinstance(value, dict) and value and prefix != "loss.terms.":
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_recipe_key_has_a_row() -> None:
    filled = Recipe.model_validate({"pretrain": {}, "sparse": {}}).model_dump()
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \|", RECIPE, re.MULTILINE)
    assert sorted(rows) == sorted(leaves(filled))


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every field that holds a value, with its dotted key."""
    for name, field in model.model_fields.items():
        inner = GENERATE["_section"](field.annotation)
        if inner is None:
            yield path + name, field
        elif isinstance(field.default, inner) or field.default is None:
            yield from sections(inner, f"{path}{name}.")


@pytest.mark.parametrize("key", [key for key, field in sections(Recipe) if not field.description])
def test_every_recipe_key_is_described(key: str) -> None:
    pytest.fail(f"{key} has no description: add one to its field in spectra_nsa/config")


def test_defaults_are_written_as_yaml_reads_them() -> None:
    assert "| `train.lr` | number | 0.0001 |" in RECIPE
    assert "| `train.shard` | true or false | false |" in RECIPE
    assert "| `model.semantic_dims` | list of integers or null | null |" in RECIPE
    assert re.search(r"\| `model.start` \| text or null \| null \|", RECIPE)


def test_every_verb_and_every_flag_is_listed() -> None:
    blocks = dict(re.findall(r"^## spectra (.+?)\n(.*?)(?=^## |\Z)", CLI, re.MULTILINE | re.DOTALL))
    assert set(blocks) == set(FLAGS)
    for command, flags in FLAGS.items():
        for flag in flags.split():
            if flag.startswith("--"):
                assert f"`{flag}" in blocks[command], f"{command} {flag}"


def test_every_public_name_is_listed() -> None:
    names = set(re.findall(r"^::: spectra_nsa\.(\w+)$", PYTHON, re.MULTILINE))
    assert names == {name for name in spectra_nsa.__all__ if not name.startswith("_")}


def test_the_methods_of_public_classes_are_listed() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    for name in ("SparseIndex", "QueryWeights", "SpectraSparseEncoder"):
        part = page.split(f"## `{name}`")[1].split("\n## ")[0]
        methods = [key for key in vars(getattr(spectra_nsa, name)) if not key.startswith("_")]
        documented = [key for key in methods if callable(getattr(getattr(spectra_nsa, name), key, None))]
        assert documented and all(f"| `{key}` |" in part for key in documented), name
