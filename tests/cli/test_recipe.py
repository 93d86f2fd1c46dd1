"""`spectra recipe`: list, show and copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.shipped import recipe_names, recipe_path
from spectra_nsa.core.errors import SpectraError


def spectra(*words: str) -> str:
    return CliRunner().invoke(app, ["recipe", *words], catch_exceptions=False, env={"COLUMNS": "200"}).stdout


def test_the_list_describes_every_recipe() -> None:
    found = json.loads(spectra("list", "--json"))["recipes"]
    assert list(found) == recipe_names() and {"m456", "nexus-240m", "quickstart"} <= set(found)
    lines = spectra("list").splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert found["m456"] == "M456 from scratch, 458 M parameters, three epochs on 98,000 triplets of MS MARCO"


def test_show_prints_the_file_and_as_json_every_key() -> None:
    assert spectra("show", "M456") == recipe_path("m456").read_text(encoding="utf-8")
    shown = Recipe.model_validate(json.loads(spectra("show", "m456", "--json"))["recipe"])
    assert shown == load_recipe(recipe_path("m456"))


def test_a_copy_is_identical_and_never_overwrites_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "spectra train m1b.yaml" in spectra("copy", "M1B")
    copied = tmp_path / "m1b.yaml"
    assert copied.read_bytes() == recipe_path("m1b").read_bytes()
    copied.write_text("name: mine\n")
    with pytest.raises(SpectraError, match="exists already"):
        spectra("copy", "m1b")
    assert copied.read_text() == "name: mine\n"
    assert json.loads(spectra("copy", "m1b", "deep/own.yml", "--json"))["file"] == "deep/own.yml"
    assert (tmp_path / "deep" / "own.yml").is_file()
