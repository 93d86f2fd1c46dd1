"""What one lookup of the token embedding a batch saves over one a pass (`models/length_batches.with_rows`), on a CPU.

    python benchmarks/lookup.py [--steps 12] [--length 128] [--batch 64] [--size NAME]

The real trainer with every head, twice on the same batches; the two ways take turns step by step, and in the second run
the turns are swapped, so that each batch is computed both ways. The ratio of each step to its twin, wall and processor
time, median and quartiles; the first two steps are left out. MiniLM, or with --size a preset from scratch.
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

ONCE = length_batches.with_rows
WARM_UP = 2


class Turns(TrainerCallback):
    """Changes the way before each step, and takes its times."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.times: list[tuple[float, float]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        once = (state.global_step + self.first) % 2 == 0
        length_batches.with_rows = ONCE if once else lambda features, table: list(features)
        self.began = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append((time.perf_counter() - self.began[0], time.process_time() - self.began[1]))


def run(recipe: Recipe, data: TrainingData, first: int) -> Turns:
    """One run; `first` says which way the first step goes."""
    set_seed(0)
    model = open_start(recipe)
    fit_rarity(model, data.train)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(recipe, model, data, RunSetup(folder=Path(folder)))
        trainer.args.save_strategy = SaveStrategy.NO
        turns = Turns(first)
        trainer.add_callback(turns)
        trainer.train_from(None)
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", help="a preset; MiniLM otherwise")
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
    for place, kind in enumerate(("wall", "processor")):
        ratios, seconds = [], []
        for step, (one, other) in enumerate(zip(first, second, strict=True), start=WARM_UP):
            once, each = (one, other) if step % 2 == 0 else (other, one)
            ratios.append(each[place] / once[place])
            seconds.append(each[place])
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{kind:10} {statistics.median(seconds):6.2f} s a step looked up in each pass; once a batch is "
              f"{middle:.3f} times as fast ({low:.3f} to {high:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
