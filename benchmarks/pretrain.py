"""Does pretraining on texts help? Held-out perplexity, then contrastive training from it beside random weights.

    python benchmarks/pretrain.py [--size small] [--model CHECKPOINT] [--steps 150] [--pair-steps 60] [--limit 4000]
        [--batch 32] [--seeds 1] [--data FOLDER]

Pretrains on public books, PEPs and RFCs, medical questions and answers, and the installed Python packages, `limit`
rows of each; from a checkpoint where `--model` names one. Then trains on docstring → code pairs for equally many steps
of the same batches from the pretrained model and from what it began with, and measures both on STS-B dev and CoSQA dev
queries. First of all, the padding of packed sequences beside that of other ways to batch. FOLDER is $SPECTRA_DATA, or
../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.evaluation.run import evaluate
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.evaluation.tasks import tasks_from
from spectra_nsa.models.length_groups import Work
from spectra_nsa.models.sentence import load
from spectra_nsa.training.corpus import load_texts
from spectra_nsa.training.pretrain import check_recipe, open_masked, packed, pretrain
from spectra_nsa.training.run import train

LENGTH = 128


def recipe_of(options: argparse.Namespace, folder: str, seed: int) -> Recipe:
    sources = [str(options.data / name / "train.jsonl.gz") for name in ("classic_books", "peps_rfcs", "medquad")]
    flags: dict[str, Any] = {
        "model.start": options.model, "model.size": None if options.model else options.size,
        "model.max_length": LENGTH, "data.train": sources[0], "data.limit": options.limit, "data.dev_rows": 200,
        "pretrain.also": [*sources[1:], "python:installed"], "train.max_steps": options.steps, "train.seed": seed,
        "train.batch": options.batch, "train.lr": 1e-3 if options.model is None else 1e-4,
        "train.evaluate_every": max(1, options.steps // 5), "train.checkpoint_every": max(1, options.steps // 5) * 5,
        "train.epochs": 1000, "output": folder, "name": "pretrained",
    }  # fmt: skip
    return check_recipe(load_recipe(None, [], flags=flags))


def show_padding(recipe: Recipe) -> None:
    """Computed tokens over real ones: packed and computed by length, padded batches, packed in one row each."""
    around, _ = open_masked(recipe)
    sequences, _, room = packed(recipe, around, load_texts(recipe, quarantine=None))
    rows = np.random.default_rng(0).permutation(len(sequences))[: 20 * recipe.train.batch].tolist()
    work, fill, padded = Work(), 0, 0
    for start in range(0, len(rows), recipe.train.batch):
        part = rows[start : start + recipe.train.batch]
        sequences.batch(part, 0, work=work)
        fill += room * len(part)
        lengths = [len(sequences.documents[index][0]) + 2 for row in part for index in sequences.packed[row]]
        padded += len(lengths) * max(lengths)
    done = work.empty()
    facts = {
        "documents": len(sequences.documents),
        "sequences": len(sequences),
        "padding, packed and by length": round(done.padded / done.tokens - 1, 4),
        "padding, one padded batch": round(padded / done.tokens - 1, 4),
        "padding, one row a sequence": round(fill / done.tokens - 1, 4),
        "attention scores, by length": done.squares,
        "attention scores, one row a sequence": fill * room,
    }
    print(json.dumps(facts), flush=True)


def downstream(name: str, start: dict[str, Any], options: argparse.Namespace, folder: str, seed: int) -> None:
    flags = {
        **start, "model.max_length": LENGTH, "data.train": "python:installed", "data.limit": 2 * options.limit,
        "data.dev_rows": 0, "train.max_steps": options.pair_steps, "train.batch": 64, "train.seed": seed,
        "train.epochs": 1000, "train.lr": 5e-4, "watch.rows": 0, "output": folder, "name": f"pairs-{name}",
    }  # fmt: skip
    result = train(load_recipe(None, [], flags=flags))
    tasks, notes = tasks_from(
        [f"sts={options.data}/stsb/dev.jsonl.gz", f"retrieval={options.data}/cosqa_retrieval_dev:test"]
    )
    measured = evaluate([DenseSystem(name, load(result.folder / "model"))], tasks, notes=notes)
    figures = {f"{one.name} {one.metric}": one for one in measured.results if one.metric in ("spearman", "ndcg@10")}
    shown = {key: [round(one.value, 4), [round(end, 4) for end in one.ci or ()]] for key, one in figures.items()}
    print(json.dumps({"from": name, "seed": seed, "pair_steps": result.steps, **shown}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small")
    parser.add_argument("--model")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pair-steps", type=int, default=60)
    parser.add_argument("--limit", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    options = parser.parse_args()
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            recipe = recipe_of(options, folder, seed)
            if seed == 0:
                show_padding(recipe)
            result = pretrain(recipe)
            rows = (result.folder / "metrics.jsonl").read_text().splitlines()
            curve = {
                row["step"]: round(row["eval_dev_perplexity"], 1)
                for row in map(json.loads, rows)
                if "eval_dev_perplexity" in row
            }
            seconds = round(result.seconds)
            print(json.dumps({"seed": seed, "perplexity": curve, "seconds": seconds}), flush=True)
            before = {"model.start": options.model} if options.model else {"model.size": options.size}
            downstream("start", before, options, folder, seed)
            downstream("pretrained", {"model.start": str(result.folder / "model")}, options, folder, seed)


if __name__ == "__main__":
    main()
