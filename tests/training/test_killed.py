"""Runs that are killed with SIGKILL, again and again, end bit for bit like one that was left alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spectra_nsa.core.checksums import damage
from spectra_nsa.training.checkpoints import checkpoints_of
from tests.builders import WORDS, bert_folder

Train = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def train() -> Iterator[Train]:
    """`spectra train` in a process that is forked for each call."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.training.killing"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def call(folder: Path, *arguments: str, **death: Any) -> dict[str, Any]:
        order = {"arguments": ["train", *arguments], "folder": str(folder), "output": f"{folder}.txt", **death}
        assert driver.stdin is not None and driver.stdout is not None
        driver.stdin.write(json.dumps(order) + "\n")
        driver.stdin.flush()
        return json.loads(driver.stdout.readline())

    yield call
    assert driver.stdin is not None
    driver.stdin.close()
    driver.wait(60)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert"))


def rows_file(path: Path, columns: list[str]) -> Path:
    generator = np.random.default_rng(0)
    rows = []
    for number in range(96):
        texts = {name: " ".join(generator.choice(WORDS, generator.integers(2, 9))) for name in columns}
        rows.append(json.dumps({**texts, "place": "abc"[number % 3]}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


RUNS = {
    "pairs": (["anchor", "positive"], ["train.accumulation=2", "train.batch=4", "model.spectral=true"]),
    "negatives": (["anchor", "positive", "negative"], ["data.group=place", "train.batch=8", "model.depth_mix=true"]),
}


def recipe(folder: Path, start: Path, kind: str) -> list[str]:
    """Every head, dropout, ramps, gates, a log line that spans checkpoints, and more than one epoch."""
    columns, more = RUNS[kind]
    data = rows_file(folder / "rows.jsonl", columns)
    return [
        f"data.train={data}", f"model.start={start}", "data.dev_rows=16", "train.epochs=2.5", "train.lr=1e-3",
        "train.precision=fp32", "train.log_every=3", "train.checkpoint_every=2", "train.evaluate_every=1",
        "model.dropout=0.1", "model.entity=true", "loss.temperature_start=0.1", "loss.terms.anchor.start=3",
        "loss.terms.bridge.ramp=9", "loss.terms.spectral.weight=0.1", "loss.terms.triplet.weight=0.1",
        "train.schedule=cosine", *more,
    ]  # fmt: skip


def assert_same(whole: Path, part: Path) -> None:
    def lines(folder: Path) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key not in ("time", "eval_runtime")} for row in rows]

    assert lines(whole) == lines(part)
    ends = [checkpoints_of(folder)[-1] for folder in (whole, part)]
    assert ends[0].name == ends[1].name
    for name in ("model/model.safetensors", *(f"checkpoints/{ends[0].name}/{one}.pt" for one in ("optimizer", "scheduler"))):
        a, b = whole / name, part / name
        load = load_file if name.endswith("safetensors") else lambda path: torch.load(path, weights_only=True)
        torch.testing.assert_close(load(a), load(b), rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "kills"), [("pairs", 20), ("negatives", 20)])
def test_a_killed_run_ends_bit_identical(tmp_path: Path, start: Path, train: Train, kind: str, kills: int) -> None:
    words = recipe(tmp_path, start, kind)
    whole, part = tmp_path / "whole", tmp_path / "part"
    began = time.monotonic()
    done = train(whole, *words, f"output={tmp_path}", "name=whole")
    seconds = time.monotonic() - began
    assert done["status"] == 0, Path(f"{whole}.txt").read_text()
    chance = random.Random(0)
    dead = steps = 0
    while dead < kills:
        known = (part / "recipe.yaml").is_file()
        arguments = ["--resume", str(part)] if known else [*words, f"output={tmp_path}", "name=part"]
        if dead % 2:
            death = {"seconds": chance.uniform(0.3, 1.0) * seconds}
        else:
            death = {"event": chance.randint(1, done["events"] // 4)}
        ended = train(part, *arguments, **death)
        if ended["status"] != -9:
            break
        dead += 1
        steps = max(steps, len(checkpoints_of(part)))
        assert not [one for one in checkpoints_of(part) if damage(one)], "half a checkpoint under a whole one's name"
    print(dead, seconds, done)
    assert dead >= kills // 2, "the run ended before it was killed often enough to say anything"
    if ended["status"] == -9:
        ended = train(part, "--resume", str(part))
    assert ended["status"] == 0, Path(f"{part}.txt").read_text()
    assert_same(whole, part)
