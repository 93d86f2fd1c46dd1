"""What is told of a folder that is no model, before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.checks import named_folder


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
