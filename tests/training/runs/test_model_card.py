"""The model card of a trained model says what it was trained from and on."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.training.runs.model_card import complete_card

UNKNOWN = (
    "<!-- - **Base model:** [Unknown](https://huggingface.co/unknown) -->\n<!-- - **Training Dataset:** Unknown -->\n"
)
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("words", "base"),
    [
        ([f"model.start={MINILM}"], f"[{MINILM}](https://huggingface.co/{MINILM})"),
        (["model.size=small"], "none, small from scratch"),
        (["model.start=tiny", "sparse={}"], "tiny"),
        (["model.start=small", "sparse={}"], "[distilbert/distilbert-base-uncased](https://huggingface.co/distilbert/"),
        (["model.start=FOLDER/base"], "base"),
    ],
)
def test_origins_are_named_without_local_folders(tmp_path: Path, words: list[str], base: str) -> None:
    (tmp_path / "base").mkdir()
    card = tmp_path / "README.md"
    card.write_text(UNKNOWN, encoding="utf-8")
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    complete_card(tmp_path, load_recipe(None, [*words, "data.train=python:stdlib"]), 1_200)
    text = card.read_text(encoding="utf-8")
    assert f"- **Base model:** {base}" in text and "- **Training Dataset:** python:stdlib (1,200 rows)" in text
    assert "Unknown" not in text and str(tmp_path) not in text


def test_a_card_that_knows_more_stays_as_it_is(tmp_path: Path) -> None:
    complete_card(tmp_path, load_recipe(None, ["model.size=small"]), 1)
    assert not (tmp_path / "README.md").exists()
    (tmp_path / "README.md").write_text("- **Base model:** known\n", encoding="utf-8")
    complete_card(tmp_path, load_recipe(None, ["model.size=small"]), 1)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "- **Base model:** known\n"
