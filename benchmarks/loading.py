"""The speed and memory of reading rows, and the share of a training step spent on tokenization.

    python benchmarks/loading.py [--rows 1000000] [--steps 6] [--json FILE]

Writes a file of pairs of random words (one text of 4 to 12, one of 20 to 60) and loads it as `spectra train` does:
first from the file, then from the cache, each in a separate process with a separate cache. `anonymous` is the private
memory of the process beyond what it uses after its imports. It excludes mapped files, which the system can reclaim.
Then times a step of MiniLM with a batch of 64 on documented Python functions, with batches made from texts and from
token ids.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.config.sections import DataSection
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.training.data.rows import TrainingData, load_training_data
from spectra_nsa.training.data.token_cache import token_rows
from spectra_nsa.training.init.start import open_start
from spectra_nsa.training.jobs.pairs import build_trainer
from spectra_nsa.training.loop.plan import RunSetup

BATCH, LENGTH, WARM_UP = 64, 128, 2


def write_pairs(path: Path, rows: int) -> None:
    """Writes a JSON Lines file of pairs with distinct anchors."""
    source = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(source.choices(letters, k=source.randint(2, 9))) for _ in range(20_000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            anchor = " ".join(source.choices(words, k=source.randint(4, 12)))
            positive = " ".join(source.choices(words, k=source.randint(20, 60)))
            file.write(json.dumps({"anchor": f"{anchor} {number}", "positive": positive}) + "\n")


def anonymous_gb() -> float:
    """Returns the private memory of this process (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e9


def load(path: str) -> dict[str, float]:
    """Loads training data in this process and samples its memory."""
    before = peak = anonymous_gb()
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, anonymous_gb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    data = load_training_data(DataSection(train=path), seed=0, quarantine=None)
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    return {
        "rows": len(data.train),
        "seconds": seconds,
        "rows_per_second": len(data.train) / seconds,
        "anonymous_gb_at_most": peak - before,
        "anonymous_gb_after": anonymous_gb() - before,
    }


def loading(rows: int) -> dict[str, Any]:
    """Runs `load` on the file, and then on the cache that this created."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        write_pairs(path, rows)
        found: dict[str, Any] = {"megabytes": path.stat().st_size / 1e6}
        time.sleep(3)  # a file written just now is hashed, because its modification time is not reliable yet
        for way in ("from the file", "from the cache"):
            command = [sys.executable, __file__, "--load", str(path)]
            variables = os.environ | {"XDG_CACHE_HOME": folder}
            answer = subprocess.run(command, env=variables, check=True, capture_output=True, text=True)
            found[way] = json.loads(answer.stdout.splitlines()[-1])
        return found


class StepTimes(TrainerCallback):
    """Records when each step ends."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())


def milliseconds(make: Callable[[list[int]], Any], times: int = 30) -> float:
    """Returns the median time of making a batch, each from different rows."""
    times_taken = []
    for number in range(times):
        before = time.perf_counter()
        make(list(range(number * BATCH, (number + 1) * BATCH)))
        times_taken.append(time.perf_counter() - before)
    return 1e3 * statistics.median(times_taken)


def stepping(steps: int) -> dict[str, float]:
    """Measures a training step that tokenizes its batch, and making a batch in both ways, in milliseconds."""
    start, _ = starter_checkpoint()
    pairs = environment_pairs("stdlib").dataset.shuffle(seed=0).select_columns(["anchor", "positive"])
    data = TrainingData(train=pairs, dev=None, dev_kind=None, quarantined=0)
    with tempfile.TemporaryDirectory() as folder:
        keys = [f"model.start={start}", f"model.max_length={LENGTH}", f"train.batch={BATCH}", "monitor.rows=0"]
        recipe = load_recipe(None, [*keys, f"output={folder}", f"train.max_steps={steps + WARM_UP}"])
        model = open_start(recipe)
        trainer = build_trainer(recipe, model, data, RunSetup(folder=Path(folder) / "run"))
        started = time.perf_counter()
        found = token_rows(data, model, trainer.data_collator)
        seconds = time.perf_counter() - started
        assert found is not None and trainer.texts is None
        rows, pad = found
        texts = milliseconds(lambda indices: trainer.data_collator(data.train.__getitems__(indices)))
        ids = milliseconds(lambda indices: pad(rows.__getitems__(indices)))
        times = StepTimes()
        trainer.add_callback(times)
        trainer.train()
    moments = times.moments[WARM_UP - 1 :]
    step = 1e3 * statistics.median(after - before for before, after in itertools.pairwise(moments))
    return {
        "step_ms": step, "batch_of_texts_ms": texts, "batch_of_ids_ms": ids,
        "share_of_texts": texts / step, "share_of_ids": ids / (step - texts + ids),
        "pairs_tokenised_per_second": len(rows) / seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(options.load)))
        return
    found = {"environment": environment(), "loading": loading(options.rows), "step": stepping(options.steps)}
    print(f"{options.rows:,} pairs, {found['loading']['megabytes']:.0f} MB")
    for way in ("from the file", "from the cache"):
        one = found["loading"][way]
        print(
            f"{way:15} {one['seconds']:6.1f} s  {one['rows_per_second']:11,.0f} rows/s  anonymous memory: "
            f"{one['anonymous_gb_at_most']:.2f} GB at most, {one['anonymous_gb_after']:.2f} GB afterwards"
        )
    step = found["step"]
    speed = step["pairs_tokenised_per_second"]
    print(f"a step of {BATCH} pairs: {step['step_ms']:,.0f} ms; {speed:,.0f} pairs/s tokenized in advance")
    for kind in ("texts", "ids"):
        made, share = step[f"batch_of_{kind}_ms"], step[f"share_of_{kind}"]
        print(f"its batch from {kind:5} {made:6.1f} ms  {share:.1%} of the step")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
