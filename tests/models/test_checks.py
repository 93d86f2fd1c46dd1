"""What is told of a folder that is no model, before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.checks import check_tokenizer_name, local_folder, names_model, resolve_folder


def test_a_folder_around_a_model_names_the_model(tmp_path: Path) -> None:
    run = tmp_path / "first"
    (run / "checkpoints").mkdir(parents=True)
    assert local_folder(run) == run, "what it is, whoever opens it finds out"
    (run / "recipe.yaml").touch()
    with pytest.raises(SpectraError, match=r"without a final model.*--resume .*first\).*step-N"):
        local_folder(run)
    (run / "model").mkdir()
    (run / "model" / "modules.json").touch()
    with pytest.raises(SpectraError, match=r"first is not a model folder, but contains one\. Name .*first/model\."):
        local_folder(run)
    assert local_folder(run / "model") == run / "model"
    assert local_folder("org/name") is None


def test_a_tokenizer_that_is_not_there_can_be_made(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    with pytest.raises(
        SpectraError, match=f"^model.tokenizer: {folder} does not exist. .* tokenizer train .*{folder}, "
    ):
        check_tokenizer_name(str(folder), "model.tokenizer")
    folder.mkdir()
    check_tokenizer_name(str(folder))
    check_tokenizer_name("org/name")
    (folder / "tokenizer.json").touch()
    with pytest.raises(SpectraError, match=r"tokenizer\.json is a file\. Name the folder"):
        check_tokenizer_name(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (LocalEntryNotFoundError("no snapshot"), "neither a folder here nor in the Hub's cache, and the Hub could not"),
        (HFValidationError("odd"), "neither a folder here nor a model on the Hub"),
        (OSError("disk full\nmore"), "could not be loaded from the Hub: disk full"),
    ],
)
def test_a_hub_name_that_gives_no_model(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(SpectraError, match=f"^org/name .*{message}"):
        resolve_folder("org/name")


def test_a_word_that_names_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--org--name").mkdir()
    assert names_model(str(tmp_path)) and names_model("org/name")
    assert not any(map(names_model, ("org/other", "read/write a file", "open")))
