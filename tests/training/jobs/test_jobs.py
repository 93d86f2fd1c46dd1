"""Which job a recipe is for, and how the driver runs a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import UsageError
from spectra_nsa.training import jobs
from spectra_nsa.training.jobs import checked_recipe, job_for
from spectra_nsa.training.jobs.job import Job
from spectra_nsa.training.jobs.masked_lm import MaskedLMJob
from spectra_nsa.training.jobs.pairs import PairsJob
from spectra_nsa.training.run import train
from tests.builders import WORDS


def test_a_recipe_decides_its_job() -> None:
    plain = load_recipe(None, ["model.size=small"])
    assert job_for(plain) is PairsJob and checked_recipe(plain, "train") == plain
    pretraining = checked_recipe(plain, "pretrain")
    assert pretraining.pretrain is not None and job_for(pretraining) is MaskedLMJob
    with pytest.raises(UsageError, match="is for spectra pretrain"):
        checked_recipe(pretraining, "train")


class RecordingJob(PairsJob):
    """A third kind of run: that of pairs, which writes down what the driver calls."""

    calls: list[str] = []

    @staticmethod
    def applies_to(recipe: Any) -> bool:
        return recipe.name == "recorded"

    def __getattribute__(self, name: str) -> Any:
        if name in Job.__abstractmethods__:
            RecordingJob.calls.append(name)
        return super().__getattribute__(name)


def test_a_further_job_is_a_line_in_the_table(tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "JOBS", (RecordingJob, *jobs.JOBS))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"anchor": a, "positive": f"{a} file"}) + "\n" for a in WORDS))
    keys = [f"output={tmp_path}", f"model.start={start}", f"data.train={pairs}", "data.dev_rows=0", "train.batch=4"]
    more = ["train.max_steps=1", "train.precision=fp32", "monitor.rows=0"]
    result = train(load_recipe(None, [*keys, *more, "name=recorded"]))
    steps = [name for name in RecordingJob.calls if name != "rows"]  # a property, read where it is of use
    assert steps == [
        "load_rows", "check_rows", "open_model", "prepare", "start_line", "build_trainer", "finish", "save",
    ]  # fmt: skip
    RecordingJob.calls.clear()
    train(resume=result.folder)
    assert RecordingJob.calls[:5] == ["load_rows", "rows", "check_rows", "open_model", "check_checkpoint"]
