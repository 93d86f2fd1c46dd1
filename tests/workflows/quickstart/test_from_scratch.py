"""A quickstart from scratch, on small stand-ins for texts and weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

import spectra_nsa as sp
from spectra_nsa.config.presets import Preset, load_preset
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models import fresh
from spectra_nsa.workflows.quickstart import from_scratch
from spectra_nsa.workflows.quickstart import run as command
from spectra_nsa.workflows.quickstart.data import QuickstartData
from spectra_nsa.workflows.quickstart.from_scratch import pairs_within
from spectra_nsa.workflows.quickstart.run import quickstart
from tests.builders import WORDS, bert_folder

TINY = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}


def tiny_preset(name: str) -> Preset:
    preset = load_preset(name)
    return dataclasses.replace(preset, model=preset.model | TINY | {"semantic_dims": [24, 16, 8]})


def rows(count: int, group: str) -> Dataset:
    pairs = [(left, right) for left in WORDS for right in WORDS][:count]
    columns = {
        "anchor": [f"{left} the {right}" for left, right in pairs],
        "positive": [f"def {left}_{right}(): {right} {left} {group}" for left, right in pairs],
        "group": [group] * count,
        "name": [f"{left}.{right}" for left, right in pairs],
    }
    return Dataset.from_dict(columns)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fresh, "load_preset", tiny_preset)
    monkeypatch.setattr(command, "starter_checkpoint", lambda: (bert_folder(tmp_path, max_position_embeddings=128), ""))
    facts: dict[str, Any] = {"packages": 1, "removed": 0, "pairs": 400}
    monkeypatch.setitem(from_scratch.LEARNING, "train.epochs", 1)
    data = QuickstartData(rows(400, "packages"), rows(12, "stdlib"), facts)
    monkeypatch.setattr(command, "load_pairs", lambda: data)


def test_from_scratch_trains_a_small_student(small: None, tmp_path: Path) -> None:
    lines: list[str] = []
    result = quickstart(tmp_path / "run", minutes=10, from_scratch=True, say=lines.append)
    recipe = load_recipe(result.folder / "recipe.yaml")
    assert recipe.model.start is None and recipe.data.group is None
    assert recipe.distill.teachers == [recipe.model.token_vectors]
    logged = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    terms = {key for row in logged for key in row if key.startswith("distill_")}
    assert terms == {"distill_embedding"} | {f"distill_similarity_{size}" for size in (24, 16, 8)}
    model = sp.load(result.folder / "model")
    assert model.spectra.config.num_hidden_layers == 2 and model.spectra.config.norm == "pre"
    assert len(model.tokenizer) == result.facts["pieces"] < 8_000
    systems = {row.system for row in result.evaluation.results}
    assert systems == {"quickstart", "all-MiniLM-L6-v2", "bm25"}
    assert "A small model, trained from scratch" in (result.folder / "report.html").read_text(encoding="utf-8")
    assert any("pieces of its own" in line for line in lines)


def test_pairs_for_the_teacher_grow_with_the_minutes() -> None:
    assert [pairs_within(10, 24_000), pairs_within(0.1, 24_000), pairs_within(10, 300)] == [10_000, 1_000, 300]


@pytest.mark.parametrize("from_scratch", [False, True])
def test_too_little_time_is_refused_with_a_sufficient_time(small: None, tmp_path: Path, from_scratch: bool) -> None:
    with pytest.raises(SpectraError, match=r"Try --minutes (\d+)") as refused:
        quickstart(tmp_path / "run", minutes=0.5, from_scratch=from_scratch, say=lambda line: None)
    advised = int(str(refused.value).split("Try --minutes ")[1].rstrip("."))
    assert advised >= (4 if from_scratch else 2) and not (tmp_path / "run").exists()
