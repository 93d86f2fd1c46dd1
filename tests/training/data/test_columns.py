"""What the trainer feeds the model: prompts and the length cut reach the tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.training.data.rows import load_training_data
from spectra_nsa.training.init.start import open_start
from spectra_nsa.training.jobs.pairs import build_trainer
from spectra_nsa.training.loop.plan import RunSetup
from tests.builders import bert_folder


def first_batch(tmp_path: Path, *more: str, prompts: dict[str, str] | None = None) -> dict[str, Any]:
    start = bert_folder(tmp_path / "bert", prompts=prompts)
    rows = [{"positive": f"{i} read the file " * 12, "package": "ab"[i % 2]} for i in range(32)]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(r | {"anchor": f"open {i}"}) for i, r in enumerate(rows)))
    recipe = load_recipe(
        None, [f"model.start={start}", f"data.train={tmp_path / 'd.jsonl'}", "data.dev_rows=0", "train.batch=8", *more]
    )
    data = load_training_data(recipe.data, seed=0, quarantine=None)
    trainer = build_trainer(recipe, open_start(recipe), data, RunSetup(folder=tmp_path / "run"))
    return next(iter(trainer.get_train_dataloader()))


def test_prompts_of_the_model_are_trained_with(tmp_path: Path) -> None:
    plain = first_batch(tmp_path / "a")["anchor_input_ids"].shape[1]
    prompted = first_batch(tmp_path / "b", prompts={"query": "read the list ", "document": ""})["anchor_input_ids"]
    assert prompted.shape[1] == plain + 3


def test_training_cuts_where_it_is_told(tmp_path: Path) -> None:
    batch = first_batch(tmp_path / "a", "train.max_length=16")
    assert batch["positive_input_ids"].shape[1] == 16
    assert first_batch(tmp_path / "b")["positive_input_ids"].shape[1] > 16


def test_an_unknown_group_is_refused(tmp_path: Path) -> None:
    first_batch(tmp_path / "a", "data.group=package")
    with pytest.raises(SpectraError, match="package"):
        first_batch(tmp_path / "b", "data.group=pakage")
