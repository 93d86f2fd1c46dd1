"""Loading: how fast rows are read and at what memory, and what share of a training step tokenising takes.

    python benchmarks/loading.py [--rows 1000000] [--tokenised 20000] [--steps 6] [--json FILE]

Makes a file of pairs from random words (a text of 4 to 12 and one of 20 to 60), and loads it as `spectra train` does,
each time in a process of its own and with a cache of its own: first from the file, then from the cache. `anonymous` is
memory that belongs to the process alone, above what it had after its imports; mapped files, which the system takes
back when it needs room, are not in it. Then a step of MiniLM at batch 64 is timed on documented Python functions, with
its batch made of texts and of token ids.
"""

from __future__ import annotations

import argparse
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

BATCH, LENGTH = 64, 128


def write_pairs(path: Path, rows: int) -> None:
    """A JSON Lines file of pairs; no two anchors are equal."""
    source = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(source.choices(letters, k=source.randint(2, 9))) for _ in range(20_000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            anchor = " ".join(source.choices(words, k=source.randint(4, 12)))
            positive = " ".join(source.choices(words, k=source.randint(20, 60)))
            file.write(json.dumps({"anchor": f"{anchor} {number}", "positive": positive}) + "\n")


def anonymous_gb() -> float:
    """This process's own memory now (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e9


def load(path: str) -> dict[str, float]:
    """Loads training data in this process and watches its memory."""
    import datasets
    import torch

    from spectra_nsa.config.recipe import DataSection
    from spectra_nsa.training.data import load_training_data

    _ = datasets, torch  # their memory is not the data's
    before = peak = anonymous_gb()
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, anonymous_gb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    data = load_training_data(DataSection(train=path), seed=0, quarantine=None)
    seconds = time.perf_counter() - began
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
    """`load` from a file, and then from the cache that this left."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        write_pairs(path, rows)
        found: dict[str, Any] = {"megabytes": path.stat().st_size / 1e6}
        time.sleep(3)  # a file that was written just now is hashed, since its time of change proves nothing yet
        for way in ("from the file", "from the cache"):
            command = [sys.executable, __file__, "--load", str(path)]
            environment = os.environ | {"XDG_CACHE_HOME": folder}
            answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            found[way] = json.loads(answer.stdout.splitlines()[-1])
        return found


def stepping(rows: int, steps: int) -> dict[str, float]:
    """Milliseconds of a training step, and of making its batch both ways."""
    import torch

    from spectra_nsa.config.recipe import load_recipe
    from spectra_nsa.models.starter import starter_checkpoint
    from spectra_nsa.text.python_env import environment_pairs
    from spectra_nsa.training.build import build_trainer
    from spectra_nsa.training.data import TrainingData
    from spectra_nsa.training.start import open_start

    start, _ = starter_checkpoint()
    pairs = environment_pairs("stdlib").dataset.shuffle(seed=0).select_columns(["anchor", "positive"])
    data = TrainingData(
        train=pairs.select(range(min(rows, len(pairs)))), dev=None, dev_kind=None, quarantined=0, groups=None
    )
    with tempfile.TemporaryDirectory() as folder:
        keys = [f"model.start={start}", f"model.max_length={LENGTH}", f"train.batch={BATCH}", f"output={folder}"]
        recipe = load_recipe(None, keys)
        began = time.perf_counter()
        ids = build_trainer(recipe, Path(folder) / "ids", open_start(recipe), data)
        beforehand = time.perf_counter() - began
        assert ids.texts is not None
        recipe = load_recipe(None, [*keys, f"train.max_steps={steps}"])
        texts = build_trainer(recipe, Path(folder) / "texts", open_start(recipe), data)
        assert texts.texts is None

        def milliseconds(work: Callable[[int], Any], times: int) -> float:
            taken = []
            for number in range(times):
                before = time.perf_counter()
                work(number)
                taken.append(time.perf_counter() - before)
            return 1e3 * statistics.median(taken)

        def places(number: int) -> list[int]:
            return list(range(number * BATCH % (len(data.train) - BATCH), number * BATCH % (len(data.train) - BATCH) + BATCH))

        batch = {
            name: milliseconds(lambda n, t=trainer: t.data_collator(t.train_dataset.__getitems__(places(n))), 30)
            for name, trainer in (("texts", texts), ("ids", ids))
        }
        texts.data_collator = texts.data_collator
        began = time.perf_counter()
        texts.train()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        whole = 1e3 * (time.perf_counter() - began) / steps
    return {
        "step_ms": whole,
        "batch_of_texts_ms": batch["texts"],
        "batch_of_ids_ms": batch["ids"],
        "share_of_texts": batch["texts"] / whole,
        "build_seconds": beforehand,
    }
