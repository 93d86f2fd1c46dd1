"""A few real training steps of a large model from scratch: time, memory and the share of peak performance.

    python benchmarks/m456.py [--size M456] [--steps 10] [--batch 8] [--accumulation 1] [--json FILE]

Uses the shipped recipe of the size if there is one, otherwise its preset: all heads and all loss terms for triplets,
gradient checkpointing (off with --keep-activations), bf16 if it is fast, and a GPU if there is one. Triplets are real
text of at most 160 tokens: a docstring of the standard library, its function, and a random other function.

Each step is logged with its loss. The first two steps compile kernels and allocate the memory of the optimizer, so they
are excluded from the time per step. On a GPU, a second run of --sustained steps follows with two logs. Its second half
gives the sustained tokens/s and the share of the peak, without the synchronization of a log at each step.
docs/reference/files.md defines the share. Recomputed activations do not count as useful work, so with checkpointing the
share is at most three quarters of the machine's best.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.shipped import recipe_names, recipe_path
from spectra_nsa.config.terms import TERM_FACTS, live_terms
from spectra_nsa.core.memory import peak_memory_gb, release_memory
from spectra_nsa.core.precision import resolve_precision
from spectra_nsa.core.results import environment
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.training.data.rows import TrainingData
from spectra_nsa.training.init.rarity import fit_rarity
from spectra_nsa.training.init.start import open_start
from spectra_nsa.training.jobs.pairs import build_trainer
from spectra_nsa.training.loop.plan import RunSetup

WARM_UP = 2
EXTRA_TERMS = {"triplet": 0.1, "matryoshka_angular": 0.1, "spectral": 0.01}  # off by default
AIM = 0.40
MEDIANS = ("seconds", "tokens_per_second", "matmul_share")


class Lines(TrainerCallback):
    """Records when each step ends and what was logged, and prints it."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.moments.append(time.perf_counter())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.moments.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or "grad_norm" not in logs:
            return
        self.rows.append({"step": state.global_step, "seconds": self.moments[-1] - self.moments[-2], **logs})
        share = f"{logs['matmul_share']:6.1%} of the peak" if "matmul_share" in logs else ""
        print(f"step {state.global_step:4}  loss {logs['loss']:8.4f}  {self.rows[-1]['seconds']:7.2f} s  "
              f"{logs.get('tokens_per_second', 0):9,.0f} tokens/s  {share}", flush=True)  # fmt: skip


class Finished(TrainerCallback):
    """Waits for the GPU at the end of each step. It must run before the callbacks that take the time."""

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()


def triplets(rows: int) -> Dataset:
    """Returns `rows` triplets of a docstring, its function and another function, repeated if there are too few."""
    pairs = environment_pairs("stdlib").dataset.shuffle(seed=0)
    chosen = np.arange(rows) % len(pairs)
    shift = np.random.default_rng(0).integers(1, len(pairs), rows)  # never 0, which would be the positive itself
    return Dataset.from_dict(
        {
            "anchor": pairs.select(chosen)["anchor"],
            "positive": pairs.select(chosen)["positive"],
            "negative": pairs.select((chosen + shift) % len(pairs))["positive"],
        }
    )


def _terms() -> list[str]:
    """Returns the terms for triplets, without distillation."""
    dense = {name: facts for name, facts in TERM_FACTS.items() if facts.model_kind == "dense"}
    return [name for name, facts in dense.items() if "triplets" in facts.rows and not facts.learns_from]


def recipe_of(options: argparse.Namespace, steps: int, log_every: int) -> Recipe:
    """Returns the recipe of the size with all terms on, without checkpoints, evaluation and monitoring."""
    shipped = options.size.lower() in recipe_names()
    changes = [f"loss.terms.{name}.weight={weight}" for name, weight in EXTRA_TERMS.items()]
    values = {
        "model.tokenizer": "null", "model.max_length": options.length, "train.max_steps": steps,
        "train.batch": options.batch, "train.accumulation": options.accumulation, "train.log_every": log_every,
        "train.precision": options.precision, "train.gradient_checkpointing": not options.keep_activations,
        "data.dev_rows": 0, "monitor.rows": 0, "name": "steps",
    }  # fmt: skip
    changes += [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in values.items()]
    recipe = load_recipe(recipe_path(options.size) if shipped else None, changes, flags={"model.size": options.size})
    missing = set(_terms()) - set(live_terms(recipe, ["anchor", "positive", "negative"]))
    assert not missing, f"terms that are off: {missing}"
    return recipe


def run(recipe: Recipe, model: SpectraSentenceTransformer, rows: Dataset) -> Lines:
    """Trains without saving checkpoints."""
    data = TrainingData(train=rows, dev=None, dev_kind=None, quarantined=0)
    lines = Lines()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(recipe, model, data, RunSetup(folder=Path(folder)))
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.callback_handler.callbacks.insert(0, Finished())
        trainer.add_callback(lines)
        trainer.train_from(None)
    return lines


def main() -> None:
    options = arguments()
    cuda = torch.cuda.is_available()
    sustained = options.sustained if options.sustained is not None else 60 if cuda else 0
    recipe = recipe_of(options, options.steps, 1)
    rows = triplets(
        options.batch * options.accumulation * max(options.steps, sustained) * 2
    )  # no text twice in a batch
    set_seed(0)
    model = open_start(recipe)
    fit_rarity(model, rows)
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    where = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    precision = resolve_precision(options.precision)
    kept = "activations kept" if options.keep_activations else "gradient checkpointing"
    print(f"{options.size}, {size:.1f} M parameters, {precision}, {where}")
    print(f"{len(_terms())} terms, batch {options.batch} × {options.accumulation}, {kept}", flush=True)
    lines = run(recipe, model, rows)
    timed = lines.rows[WARM_UP:] or lines.rows
    middle = {key: float(np.median([row[key] for row in timed])) for key in MEDIANS}
    found: dict[str, Any] = {
        **middle,
        "peak_memory_gb": peak_memory_gb(),
        "gpu_memory_gb": max(row.get("gpu_memory_gb", 0.0) for row in lines.rows) if cuda else None,
        "losses": [row["loss"] for row in lines.rows],
    }
    release_memory()
    if sustained:
        last = run(recipe_of(options, sustained, max(1, sustained // 2)), model, rows).rows[-1]
        found["sustained"] = {key: last[key] for key in ("tokens_per_second", "pairs_per_second", "matmul_share")}
    show(found)
    if options.json:
        facts = {"size": options.size, "parameters": round(size * 1e6), "precision": precision, "where": where}
        document = {"environment": environment(), **facts, "recipe": recipe.model_dump(), **found, "steps": lines.rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def show(found: dict[str, Any]) -> None:
    losses = found["losses"]
    print(f"\nloss {losses[0]:.4f} at the first step, {losses[-1]:.4f} at the last; {found['seconds']:.2f} s per step, "
          f"{found['tokens_per_second']:,.0f} tokens/s (medians)")  # fmt: skip
    gpu = f", {found['gpu_memory_gb']:.1f} GB on the GPU" if found["gpu_memory_gb"] else ""
    print(f"peak memory {found['peak_memory_gb']:.1f} GB{gpu}; {found['matmul_share']:.1%} of the measured matmul peak")
    if "sustained" in found:
        speed = found["sustained"]
        print(f"sustained: {speed['tokens_per_second']:,.0f} tokens/s, {speed['pairs_per_second']:.1f} triplets/s, "
              f"{speed['matmul_share']:.1%} of the peak (goal {AIM:.0%})")  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="M456", help="a size preset")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--length", type=int, default=160, help="maximum length of a text in tokens")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--keep-activations", action="store_true", help="no gradient checkpointing")
    parser.add_argument("--sustained", type=int, help="steps of the second run; by default 60 on a GPU, otherwise none")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
