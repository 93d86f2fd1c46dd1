"""The speedup from one token embedding lookup per batch instead of one per pass, on a CPU.

    python benchmarks/lookup.py [--steps 12] [--length 128] [--batch 64] [--size NAME]

See `with_embedding_rows`. Runs the real trainer with all heads twice on the same batches. The two methods
alternate between steps, and the second run swaps them, so each batch is computed with both. Prints the ratio of the two
times of each step, in wall and processor time, as median and quartiles, without the first two steps. The model is
MiniLM, or with --size a preset from scratch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.tokens import length_batches
from spectra_nsa.training.data.rows import TrainingData
from spectra_nsa.training.init.rarity import fit_rarity
from spectra_nsa.training.init.start import open_start
from spectra_nsa.training.jobs.pairs import build_trainer
from spectra_nsa.training.loop.plan import RunSetup

LOOKUP_PER_BATCH = length_batches.with_embedding_rows
WARM_UP = 2


class AlternatingLookup(TrainerCallback):
    """Switches the lookup method before each step and measures the step."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.times: list[tuple[float, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        per_batch = (state.global_step + self.first) % 2 == 0
        length_batches.with_embedding_rows = LOOKUP_PER_BATCH if per_batch else lambda features, table: list(features)
        self.start = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append((time.perf_counter() - self.start[0], time.process_time() - self.start[1]))


def run(recipe: Recipe, data: TrainingData, first: int) -> AlternatingLookup:
    """Runs the training; `first` selects the method of the first step."""
    set_seed(0)
    model = open_start(recipe)
    fit_rarity(model, data.train)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(recipe, model, data, RunSetup(folder=Path(folder)))
        trainer.args.save_strategy = SaveStrategy.NO
        lookup = AlternatingLookup(first)
        trainer.add_callback(lookup)
        trainer.train_from(None)
    return lookup


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", help="a preset; by default MiniLM")
    options = parser.parse_args()
    rows = environment_pairs("stdlib").dataset.shuffle(seed=0).select_columns(["anchor", "positive"])
    start = f"model.size={options.size}" if options.size else f"model.start={starter_checkpoint()[0]}"
    values = [
        start, f"model.max_length={options.length}", f"train.max_steps={WARM_UP + options.steps}",
        f"train.batch={options.batch}", "train.accumulation=1", "train.log_every=1000", "monitor.rows=0",
    ]  # fmt: skip
    recipe = load_recipe(None, values)
    data = TrainingData(train=rows, dev=None, dev_kind=None, quarantined=0)
    first, second = run(recipe, data, 0).times[WARM_UP:], run(recipe, data, 1).times[WARM_UP:]
    for index, kind in enumerate(("wall", "processor")):
        ratios, seconds = [], []
        for step, (times_1, times_2) in enumerate(zip(first, second, strict=True), start=WARM_UP):
            per_batch, per_pass = (times_1, times_2) if step % 2 == 0 else (times_2, times_1)
            ratios.append(per_pass[index] / per_batch[index])
            seconds.append(per_pass[index])
        low, median, high = statistics.quantiles(ratios, n=4)
        print(f"{kind:10} {statistics.median(seconds):6.2f} s per step with a lookup per pass; a lookup per batch is "
              f"{median:.3f} times as fast ({low:.3f} to {high:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
