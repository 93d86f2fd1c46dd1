"""Training speed: the trainer of Spectra against that of sentence-transformers, in one run, on the same pairs.

    python benchmarks/train.py [--rounds 3] [--steps 6] [--rows 1024] [--json FILE]

Five systems alternate on the same batches of 64 pairs of a docstring and its function, cut at 128 tokens, in the same
precision (`auto`; the stock trainer's own default is fp32). Nothing is logged, evaluated or saved. In the first four,
the loss is the same: in-batch InfoNCE of the embedding, cosine / 0.05, in one direction, at the full width.

- stock                  the trainer of sentence-transformers, with the dropout of the checkpoint (0.1)
- stock, no dropout
- spectra, dropout 0.1
- spectra                no dropout, as `spectra train` has it by default
- spectra, default loss  no dropout, with all loss terms, Matryoshka sizes and directions that are on by default

So the first four compare how a step is computed, not what users get who change nothing: `spectra train` has more loss
terms, and measures the vectors' health. The fifth shows what the terms cost. Docstrings and functions are of very
different lengths, which is where length batches save most; short pairs of like length gain little.

Each figure is the median over the rounds. Ratios are computed within a round, so a drifting machine speed does not
distort them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.precision import resolve_precision
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.training.data.rows import TrainingData
from spectra_nsa.training.init.start import open_start
from spectra_nsa.training.jobs.pairs import build_trainer
from spectra_nsa.training.loop.pairs_trainer import PairsTrainer
from spectra_nsa.training.loop.plan import RunSetup

BATCH, LENGTH, WARM_UP = 64, 128, 2
WIDTH = 22  # characters of a system's name
OTHER_TERMS = ("anchor", "fast", "bridge", "entity", "anomaly")  # the stock loss has none of them


class StepTimes(TrainerCallback):
    """Records when each step ends."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.moments.append(time.perf_counter())


def pairs_per_second(system: str, start: Path, rows: Dataset, steps: int, folder: str) -> float:
    """Measures the throughput of a system over `steps` steps after the warm-up."""
    dropout = 0.1 if system in ("stock", "spectra, dropout 0.1") else 0.0
    precision = resolve_precision("auto")
    arguments = SentenceTransformerTrainingArguments(
        output_dir=folder,
        max_steps=steps + WARM_UP,
        per_device_train_batch_size=BATCH,
        learning_rate=2e-5,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
        seed=0,
    )
    times = StepTimes()
    trainer: SentenceTransformerTrainer
    if system.startswith("spectra"):
        stock_loss = system != "spectra, default loss"
        trainer = spectra_trainer(start, rows, steps, dropout, Path(folder), stock_loss=stock_loss)
        trainer.add_callback(times)
    else:
        config = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        stock = SentenceTransformer(str(start), config_kwargs=config, local_files_only=True)
        stock.max_seq_length = LENGTH
        trainer = SentenceTransformerTrainer(
            model=stock,
            args=arguments,
            train_dataset=rows,
            loss=MultipleNegativesRankingLoss(stock, scale=20.0),
            callbacks=[times],
        )
    trainer.train()
    return BATCH * steps / (times.moments[-1] - times.moments[WARM_UP - 1])


def spectra_trainer(
    start: Path, rows: Dataset, steps: int, dropout: float, folder: Path, *, stock_loss: bool
) -> PairsTrainer:
    """Builds the trainer of `spectra train` without checkpoints and logs, with the stock loss or with its default."""
    keys = [
        f"model.start={start}", f"model.max_length={LENGTH}", f"model.dropout={dropout}", f"train.batch={BATCH}",
        f"train.max_steps={steps + WARM_UP}", "train.lr=2e-5", "train.log_every=1000000", "monitor.rows=0",
    ]  # fmt: skip
    if stock_loss:
        keys += ["model.matryoshka=false", "loss.both_directions=false"]
        keys += [f"loss.terms.{name}.weight=0" for name in OTHER_TERMS]
    recipe = load_recipe(None, keys)
    data = TrainingData(train=rows, dev=None, dev_kind=None, quarantined=0)
    trainer = build_trainer(recipe, open_start(recipe), data, RunSetup(folder=folder))
    trainer.args.save_strategy = SaveStrategy.NO
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start, _ = starter_checkpoint()
    pairs = environment_pairs("stdlib").dataset.shuffle(seed=0).select_columns(["anchor", "positive"])
    rows = pairs.select(range(min(options.rows, len(pairs))))
    systems = ("stock", "stock, no dropout", "spectra, dropout 0.1", "spectra", "spectra, default loss")
    speeds: dict[str, list[float]] = {system: [] for system in systems}
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(1, options.rounds + 1):
            for system in systems:
                speed = pairs_per_second(system, start, rows, options.steps, folder)
                speeds[system].append(speed)
                print(f"round {round_number}  {system:{WIDTH}} {speed:6.1f} pairs/s", flush=True)

    def ratio(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(speeds[a], speeds[b], strict=True))

    ratios = {
        "same loss, each with its default dropout (spectra / stock)": ratio("spectra", "stock"),
        "same loss, no dropout in both (spectra / stock, no dropout)": ratio("spectra", "stock, no dropout"),
        "same loss, dropout 0.1 in both (spectra, dropout 0.1 / stock)": ratio("spectra, dropout 0.1", "stock"),
        "each with its default loss and dropout (spectra, default loss / stock)": ratio(
            "spectra, default loss", "stock"
        ),
        "what the default loss costs spectra (spectra, default loss / spectra)": ratio(
            "spectra, default loss", "spectra"
        ),
        "what dropout costs stock (stock, no dropout / stock)": ratio("stock, no dropout", "stock"),
        "what dropout costs spectra (spectra / spectra, dropout 0.1)": ratio("spectra", "spectra, dropout 0.1"),
    }
    print()
    for system in systems:
        print(f"{system:{WIDTH}} {statistics.median(speeds[system]):6.1f} pairs/s (median of {options.rounds})")
    for name, value in ratios.items():
        print(f"{value:5.2f} ×  {name}")
    if options.json:
        document = {"environment": environment(), "pairs_per_second": speeds, "ratios": ratios}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
