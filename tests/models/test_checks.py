"""What is told of a folder that is no model, before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.checks import named_folder, named_tokenizer


def test_a_folder_around_a_model_names_the_model(tmp_path: Path) -> None:
    run = tmp_path / "first"
    (run / "checkpoints").mkdir(parents=True)
    assert named_folder(run) == run, "what it is, whoever opens it finds out"
    (run / "recipe.yaml").touch()
    with pytest.raises(SpectraError, match=r"no model yet.*--resume .*first\).*step-N"):
        named_folder(run)
    (run / "model").mkdir()
    (run / "model" / "modules.json").touch()
    with pytest.raises(SpectraError, match=r"first is not a model, but holds one: name .*first/model\."):
        named_folder(run)
    assert named_folder(run / "model") == run / "model"
    assert named_folder("org/name") is None


def test_a_tokenizer_that_is_not_there_can_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    with pytest.raises(
        SpectraError, match=f"^model.tokenizer: {folder} does not exist: .* tokenizer train .*{folder}, "
    ):
        named_tokenizer(str(folder), "model.tokenizer")
    folder.mkdir()
    named_tokenizer(str(folder))
    named_tokenizer("org/name")
    (folder / "tokenizer.json").touch()
    with pytest.raises(SpectraError, match=r"tokenizer\.json is a file: name the folder"):
        named_tokenizer(str(folder / "tokenizer.json"))
