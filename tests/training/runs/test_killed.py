"""Runs that are killed with SIGKILL again and again end bit for bit like one that was not."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spectra_nsa.core.checksums import damage
from spectra_nsa.training.runs.checkpoints import checkpoints_of
from tests.builders import WORDS
from tests.tools.fork_server import TIMEOUT, ForkServer

# What a machine that is busy, or a process that begins anew, may log otherwise.
OF_THE_CLOCK = {
    "time", "eval_runtime", "pairs_per_second", "tokens_per_second", "padding_waste", "matmul_share", "memory_gb",
}  # fmt: skip


class Ended(NamedTuple):
    status: int
    stderr: str
    events: int
    seconds: float


Train = Callable[..., Ended]


@pytest.fixture(scope="module")
def train(fork_server: ForkServer) -> Train:
    """`spectra train`: the exit status, what it printed, the events in its folder, and its seconds.

    `event` kills it at that event, `seconds` after that time.
    """

    def call(folder: Path, *words: str, event: int | None = None, seconds: float = TIMEOUT) -> Ended:
        began = time.monotonic()
        command = fork_server.start("train", *words, folder=folder, kill_at=event)
        if command.poll(seconds) is None:
            command.send_signal(signal.SIGKILL)
        done = command.wait()
        return Ended(done.returncode, done.stderr, command.events, time.monotonic() - began)

    call(Path("first"), "--help")  # starts the server, which takes longer than a run
    return call


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
    "negatives": (
        ["anchor", "positive", "negative"],
        ["data.group=place", "train.batch=8", "model.depth_mix=true", "loss.terms.triplet.weight=0.1"],
    ),
}


def recipe(folder: Path, start: Path, kind: str) -> list[str]:
    """Every head, dropout, ramps, gates, a log line that spans checkpoints, and more than one epoch."""
    columns, more = RUNS[kind]
    data = rows_file(folder / "rows.jsonl", columns)
    return [
        f"data.train={data}", f"model.start={start}", "data.dev_rows=16", "train.epochs=2.5", "train.lr=1e-3",
        "train.precision=fp32", "train.log_every=3", "train.checkpoint_every=2", "train.evaluate_every=1",
        "model.dropout=0.1", "model.entity=true", "loss.temperature_start=0.1", "loss.terms.anchor.start=3",
        "loss.terms.bridge.ramp=9", "loss.terms.spectral.weight=0.1", "train.schedule=cosine", *more,
    ]  # fmt: skip


def assert_same(whole: Path, part: Path) -> None:
    def lines(folder: Path) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        kept = [row for row in rows if not {"started", "ended", "warning"} & set(row)]
        return [{key: value for key, value in row.items() if key not in OF_THE_CLOCK} for row in kept]

    assert lines(whole) == lines(part)
    ends = [checkpoints_of(folder)[-1] for folder in (whole, part)]
    assert ends[0].name == ends[1].name
    torch.testing.assert_close(
        load_file(whole / "model" / "model.safetensors"),
        load_file(part / "model" / "model.safetensors"),
        rtol=0,
        atol=0,
    )
    for name in ("optimizer.pt", "scheduler.pt", "running.pt"):
        a, b = (torch.load(end / name, weights_only=True) for end in ends)
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        ("pairs", 3),
        ("negatives", 3),
        pytest.param("pairs", 20, marks=pytest.mark.slow),
        pytest.param("negatives", 20, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_bit_identical(tmp_path: Path, start: Path, train: Train, kind: str, kills: int) -> None:
    words = recipe(tmp_path, start, kind)
    whole = tmp_path / "whole"
    done = train(whole, *words, f"output={tmp_path}", "name=whole")
    assert done.status == 0, done.stderr
    seconds = done.seconds
    chance = random.Random(0)
    runs, dead = 0, 0
    while dead < kills:  # a run that ends before it has been killed so often is followed by another
        runs, part, known, ended = runs + 1, tmp_path / f"part-{runs + 1}", False, None
        while ended is None or ended.status == -signal.SIGKILL:
            words_now = ["--resume", str(part)] if known else [*words, f"output={tmp_path}", f"name={part.name}"]
            if dead >= kills:
                ended = train(part, *words_now)
            elif dead % 3:  # anywhere in a file's work, most of which is writing checkpoints
                ended = train(part, *words_now, event=chance.randint(1, done.events // 2))
            else:
                ended = train(part, *words_now, seconds=chance.uniform(0.1, 0.9) * seconds)
            if not known and ended.status == 0:  # outran its death: the first may have begun on a cold disk
                seconds = ended.seconds
            dead += ended.status == -signal.SIGKILL
            known = (part / "recipe.yaml").is_file()
            assert not [path for path in checkpoints_of(part) if damage(path)], "a checkpoint of this name is complete"
        assert ended.status == 0, ended.stderr
        assert_same(whole, part)
    print(f"{dead} kills in {runs} runs; {seconds:.1f} s and {done.events} events uninterrupted")
