"""The effect of pretraining: held-out perplexity, then contrastive training with and without pretraining.

    python benchmarks/pretrain.py [--size small] [--model CHECKPOINT] [--steps 1000] [--pair-steps 150] [--limit 4000]
        [--batch 32] [--seeds 3] [--data FOLDER] [--work FOLDER] [--json FILE]

Pretrains on public books, PEPs and RFCs, medical questions and answers, and the installed Python packages, `limit` rows
of each, from random weights or from the checkpoint of `--model`. Then trains on docstring → code pairs for the same
number of steps on the same batches from three starts: the pretrained model, its start, and, if that was random weights,
random weights with the token vectors of MiniLM (`model.token_vectors`). Evaluates all of them on STS-B dev and CoSQA
dev queries, with BM25 and untrained MiniLM for comparison. The differences have 95 % intervals over test items and
seeds (`metrics/effects.py`). The first line compares the padding of packed sequences with other ways to batch.

FOLDER is by default $SPECTRA_DATA, otherwise ../shared/data. Models that exist in WORK (by default runs/pretrain) are
not trained again: use a different folder for different options.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.files import read_json, write_json
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.outcome import Task, UnsuitableSystem
from spectra_nsa.evaluation.systems import DenseSystem, System
from spectra_nsa.evaluation.tasks import tasks_from
from spectra_nsa.metrics.bootstrap import correlation_draws, mean_draws
from spectra_nsa.metrics.effects import part_effects
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.tokens.length_batches import Work
from spectra_nsa.training.jobs import checked_recipe
from spectra_nsa.training.jobs.masked_lm import MaskedLMJob
from spectra_nsa.training.run import pretrain, train

LENGTH = 128
METRICS = {"sts": "spearman", "retrieval": "ndcg@10"}
STARTS = ("before", "words", "pretrained")


def recipe_of(options: argparse.Namespace, name: str, seed: int) -> Recipe:
    sources = [str(options.data / name / "train.jsonl.gz") for name in ("classic_books", "peps_rfcs", "medquad")]
    every = max(1, options.steps // 5)
    flags: dict[str, Any] = {
        "model.start": options.model, "model.size": None if options.model else options.size,
        "model.max_length": LENGTH, "data.train": sources[0], "data.limit": options.limit, "data.dev_rows": 200,
        "pretrain.extra_sources": [*sources[1:], "python:installed"], "train.max_steps": options.steps,
        "train.seed": seed,
        "train.batch": options.batch, "train.lr": 1e-3 if options.model is None else 1e-4,
        "train.evaluate_every": every, "train.checkpoint_every": every, "train.epochs": 1000,
        "output": str(options.work), "name": name,
    }  # fmt: skip
    return checked_recipe(load_recipe(None, [], flags=flags), "pretrain")


def show_padding(recipe: Recipe) -> None:
    """Prints the padding of packed documents grouped by length, of padded batches, and of full packed rows."""
    job = MaskedLMJob(recipe)
    job.load_rows(quarantine=None)
    job.open_model()
    job.prepare(resumed=False)
    sequences, length = job.train, job.length
    rows = np.random.default_rng(0).permutation(len(sequences))[: 20 * recipe.train.batch].tolist()
    work, fill, padded = Work(), 0, 0
    for start in range(0, len(rows), recipe.train.batch):
        part = rows[start : start + recipe.train.batch]
        sequences.batch(part, 0, work=work)
        fill += length * len(part)
        lengths = [len(sequences.documents[index][0]) + 2 for row in part for index in sequences.packed[row]]
        padded += len(lengths) * max(lengths)
    done = work.take()
    facts = {
        "documents": len(sequences.documents),
        "sequences": len(sequences),
        "padding, packed and by length": round(done.padded / done.tokens - 1, 4),
        "padding, one padded batch": round(padded / done.tokens - 1, 4),
        "padding, one row a sequence": round(fill / done.tokens - 1, 4),
        "attention scores, by length": done.squares,
        "attention scores, one row a sequence": fill * length,
    }
    print(json.dumps(facts), flush=True)


def pretrained(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Pretrains, unless WORK contains the result, and returns the held-out perplexity by step."""
    name = f"pretrained-{seed}"
    note = options.work / f"{name}.json"
    if not note.exists():
        recipe = recipe_of(options, name, seed)
        if seed == 0:
            show_padding(recipe)
        shutil.rmtree(options.work / name, ignore_errors=True)  # left by a stopped run
        result = pretrain(recipe)
        rows = [json.loads(row) for row in (result.folder / "metrics.jsonl").read_text().splitlines()]
        curve = {row["step"]: round(row["eval_dev_perplexity"], 1) for row in rows if "eval_dev_perplexity" in row}
        write_json(note, {"seed": seed, "perplexity": curve, "seconds": round(result.seconds)})
    found: dict[str, Any] = read_json(note)
    print(json.dumps(found), flush=True)
    return found


def measured(system: System, tasks: Sequence[Task]) -> dict[str, Any]:
    """Returns kind of task → its figure and values. Tasks that do not suit the system are skipped."""
    found: dict[str, Any] = {}
    for task in tasks:
        try:
            outcome = task.run(system)
        except UnsuitableSystem:
            continue
        metric = METRICS[task.kind]
        value = next(one.value for one in outcome.results if one.metric == metric)
        names = ("cosine", "gold") if task.kind == "sts" else (metric,)
        items = [np.round(np.asarray(outcome.per_unit[key], dtype=np.float64), 6).tolist() for key in names]
        found[task.kind] = {"value": value, "items": items}
    return found


def show(name: str, figures: dict[str, Any]) -> None:
    text = ", ".join(f"{kind} {METRICS[kind]} {found['value']:.4f}" for kind, found in figures.items())
    print(f"{name:14} {text}", flush=True)


def downstream(way: str, seed: int, options: argparse.Namespace, tasks: Sequence[Task]) -> dict[str, Any]:
    """Trains on pairs from one start and evaluates, unless WORK contains the figures."""
    name = f"{way}-pairs-{seed}"
    note = options.work / f"{name}.json"
    if not note.exists():
        before = {"model.start": options.model} if options.model else {"model.size": options.size}
        start = {
            "before": before,
            "words": {**before, "model.token_vectors": str(starter_checkpoint()[0])},
            "pretrained": {"model.start": str(options.work / f"pretrained-{seed}" / "model")},
        }[way]
        flags = {
            **start, "model.max_length": LENGTH, "data.train": "python:installed", "data.limit": 2 * options.limit,
            "data.dev_rows": 0, "train.max_steps": options.pair_steps, "train.batch": 64, "train.seed": seed,
            "train.epochs": 1000, "train.lr": 5e-4 if options.model is None else 1e-4, "monitor.rows": 0,
            "output": str(options.work), "name": name,
        }  # fmt: skip
        shutil.rmtree(options.work / name, ignore_errors=True)
        write_json(note, measured(DenseSystem(name, train(load_recipe(None, [], flags=flags)).model), tasks))
    figures: dict[str, Any] = read_json(note)
    show(name, figures)
    return figures


def effect(way: str, kind: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Computes the effect of a start in one kind of task, over items and seeds."""

    def draws(figures: dict[str, Any]) -> np.ndarray:
        arrays = [np.array(values) for values in figures[kind]["items"]]
        return correlation_draws(*arrays, method="spearman") if kind == "sts" else mean_draws(arrays[0])

    pairs = list(zip(runs[way], runs["before"], strict=True))
    by_seed = [with_it[kind]["value"] - without[kind]["value"] for with_it, without in pairs]
    gap = np.mean([draws(with_it) - draws(without) for with_it, without in pairs], axis=0)
    found = part_effects({kind: by_seed}, {kind: gap}, len(pairs[0][0][kind]["items"][0]))[kind]
    low, high = found.ci
    print(f"{kind}: {way} − before {found.value:+.4f} ({low:+.4f} to {high:+.4f}), {found.n} items", flush=True)
    return {"value": found.value, "ci": found.ci, "seeds": found.seeds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small")
    parser.add_argument("--model")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--pair-steps", type=int, default=150)
    parser.add_argument("--limit", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("runs/pretrain"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sources = [f"sts={options.data}/stsb/dev.jsonl.gz", f"retrieval={options.data}/cosqa_retrieval_dev:test"]
    tasks, _ = tasks_from(sources)
    others: dict[str, Any] = {}
    for name, system in (
        ("BM25", BM25System()),
        ("MiniLM", DenseSystem("MiniLM", open_teacher(starter_checkpoint()[0]).model)),
    ):
        figures = measured(system, tasks)
        show(name, figures)
        others[name] = {kind: found["value"] for kind, found in figures.items()}
    starts = [way for way in STARTS if way != "words" or options.model is None]
    curves, runs = [], {way: [] for way in starts}  # type: tuple[list[Any], dict[str, list[dict[str, Any]]]]
    for seed in range(options.seeds):
        curves.append(pretrained(options, seed))
        for way in starts:
            runs[way].append(downstream(way, seed, options, tasks))
    effects = {way: {kind: effect(way, kind, runs) for kind in METRICS} for way in starts[1:]}
    if options.json:
        values = {way: {kind: [one[kind]["value"] for one in found] for kind in METRICS} for way, found in runs.items()}
        facts = {"pretraining": curves, "systems": others | values, "effects": effects}
        write_json(options.json, facts | {"environment": environment()})


if __name__ == "__main__":
    main()
