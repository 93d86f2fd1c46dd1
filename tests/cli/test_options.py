"""Options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (["train", "--size", "small", "--data"], "rows"),
        (["pretrain", "--size", "small", "--data"], "texts"),
    ],
)
def test_columns_map_the_training_data(words: list[str], rows: str, tmp_path: Path) -> None:
    lines = "".join(f"reset item {i},open settings {i},{i}\n" for i in range(40))
    (tmp_path / "odd.csv").write_text(f"frage,antwort,nr\n{lines}")
    mapping = ["--columns", "anchor=frage,positive=antwort"]
    run = CliRunner().invoke(app, [*words, str(tmp_path / "odd.csv"), *mapping, "--dry-run", "--json"])
    assert run.exit_code == 0, run.exception
    plan: dict[str, Any] = json.loads(run.stdout)
    assert plan["recipe"]["data"]["columns"] == {"anchor": "frage", "positive": "antwort"} and plan[rows] > 0


def test_a_plan_without_a_model_says_that_it_starts_from_random_weights(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("anchor,positive\n" + "".join(f"reset {i},open {i}\n" for i in range(40)))
    run = CliRunner().invoke(app, ["train", "--data", str(tmp_path / "pairs.csv"), "--batch", "64", "--dry-run"])
    assert run.exit_code == 0, run.exception
    last, small, _ = run.stdout.splitlines()[-3:]  # a note on the few steps is last
    assert small == "note: train.batch is 64, but there are only 30 rows: each step takes all of them"
    assert last.startswith("No model.start: M456 is trained from scratch, with 458 M random weights and about ")
    assert "GB of memory" in last and last.endswith("name it with --model.")
