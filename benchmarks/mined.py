"""The effect of mined negatives: training on the same rows for the same steps, with and without them.

    python benchmarks/mined.py [KEY=VALUE ...] [--train SOURCE] [--test SOURCE | --hold-out COLUMN] [--pairs 8000]
        [--limit N] [--seeds 3] [--teacher MODEL] [--negatives 1] [--relative-margin 0.05] [--range-max 30]
        [--data FOLDER] [--work FOLDER] [--json FILE]

Mines pairs from the installed packages (or SOURCE) with TEACHER (by default MiniLM, or bm25), and trains MiniLM for one
epoch on the rows that have negatives, three times per seed: on the pairs only, with random negatives, and with the
mined negatives. `random` is the fair comparison for `mined`: the same number of texts per step, and the same time. Each
model is evaluated on the pairs of --test, by default the standard library, where a docstring must find its function,
and then also on the development queries of CoSQA if FOLDER ($SPECTRA_DATA, otherwise ../shared/data) contains them.
BM25 and the untrained model are evaluated too. With --hold-out, a tenth of the values of COLUMN in the training source
is held out for evaluation, and the test set is not used.

Near duplicates of test rows are not used for training, and test rows that occur twice are dropped. The differences have
95 % intervals over queries and seeds (`metrics/effects.py`). Models that exist in WORK (by default runs/mined) are not
trained again: use a different folder for different options.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.files import read_json, write_json
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.systems import DenseSystem, System
from spectra_nsa.evaluation.tasks import tasks_from
from spectra_nsa.metrics.bootstrap import mean_draws
from spectra_nsa.metrics.effects import part_effects
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.text.sources import load_source
from spectra_nsa.training.data.rows import TrainingData
from spectra_nsa.training.run import train
from spectra_nsa.workflows.mine.run import mine
from spectra_nsa.workflows.quickstart.data import PER_PACKAGE
from spectra_nsa.workflows.quickstart.run import QUICKSTART_RECIPE

if TYPE_CHECKING:
    from datasets import Dataset

SYSTEMS = ("pairs", "random", "mined")
METRIC = "ndcg@10"


def sources(options: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Returns training pairs without near duplicates of the test pairs, and test pairs without repetitions."""
    if options.train == "python:installed":
        rows = environment_pairs("installed", per_package=PER_PACKAGE).dataset
    else:
        rows = load_source(options.train).dataset
    if options.hold_out:
        values = sorted(set(rows[options.hold_out]))
        kept = set(np.random.default_rng(0).permutation(values)[: len(values) // 10].tolist())
        inside = np.array([value in kept for value in rows[options.hold_out]])
        rows, test = rows.select(np.flatnonzero(~inside)), rows.select(np.flatnonzero(inside))
    else:
        test = load_source(options.test).dataset
    twice = near_duplicates(list(test["anchor"]), None) | near_duplicates(list(test["positive"]), None)
    test = test.select(np.flatnonzero(~twice))
    rows = rows.shuffle(seed=0)
    rows = rows.select(range(min(2 * options.pairs, len(rows))))  # leaves enough after dropping duplicates
    seen = near_duplicates(list(rows["anchor"]), list(test["anchor"]))
    seen |= near_duplicates(list(rows["positive"]), list(test["positive"]))
    rows = rows.select(np.flatnonzero(~seen)[: options.pairs])
    return rows, test if options.limit is None else test.select(range(min(options.limit, len(test))))


def mined_rows(rows: Dataset, options: argparse.Namespace) -> Dataset:
    """Returns the rows that have negatives, with their negatives."""
    mined, note = options.work / "mined.jsonl", options.work / "mining.json"
    if not note.exists():
        with (options.work / "pairs.jsonl").open("w", encoding="utf-8") as file:
            for anchor, positive in zip(rows["anchor"], rows["positive"], strict=True):
                file.write(json.dumps({"anchor": anchor, "positive": positive}) + "\n")
        teacher = options.teacher or str(starter_checkpoint()[0])
        rules = {name: getattr(options, name) for name in ("negatives", "relative_margin", "range_max")}
        write_json(note, mine(options.work / "pairs.jsonl", teacher, mined, **rules)["counts"])
    print(json.dumps({"mining": read_json(note)}), flush=True)
    found = load_source(mined)
    return found.dataset.select_columns(list(found.roles))


def with_negatives(rows: Dataset, system: str, seed: int) -> Dataset:
    """Returns the rows of one system. Random negatives are the positives of other rows."""
    names = [name for name in rows.column_names if name.startswith("negative")]
    if system == "mined":
        return rows
    pairs = rows.remove_columns(names)
    if system == "random":
        positives, generator = list(rows["positive"]), np.random.default_rng(seed)
        for name in names:
            others = (np.arange(len(rows)) + generator.integers(1, len(rows), len(rows))) % len(rows)
            pairs = pairs.add_column(name, [positives[other] for other in others])
    return pairs


def measured(system: System, tasks: Sequence[Any]) -> dict[str, list[float]]:
    """Returns task → nDCG@10 of each query."""
    with autocast("cpu", resolve_precision("auto")):
        return {task.name: np.round(task.run(system).per_unit[METRIC], 5).tolist() for task in tasks}


def trained(rows: Dataset, system: str, seed: int, options: argparse.Namespace, tasks: Sequence[Any]) -> dict[str, Any]:
    """Trains and evaluates one model, unless WORK contains its figures."""
    name = f"{system}-{seed}"
    note = options.work / f"{name}.json"
    if not note.exists():
        start, _ = starter_checkpoint()
        flags = {"model.start": str(start), "output": str(options.work), "name": name, "train.seed": seed}
        recipe = load_recipe(QUICKSTART_RECIPE, ["data.group=null", "data.dev_rows=0", *options.changes], flags=flags)
        shutil.rmtree(options.work / name, ignore_errors=True)  # left by a stopped run
        texts = with_negatives(rows, system, seed)
        result = train(recipe, data=TrainingData(train=texts, dev=None, dev_kind=None, quarantined=0))
        figures = measured(DenseSystem(name, result.model), tasks)
        write_json(note, {"steps": result.steps, "seconds": round(result.seconds), "figures": figures})
    found: dict[str, Any] = read_json(note)
    means = {task: round(float(np.mean(values)), 4) for task, values in found["figures"].items()}
    print(f"{name:10} {json.dumps(means)}  {found['steps']} steps, {found['seconds']} s", flush=True)
    return found


def differences(runs: dict[str, list[dict[str, Any]]], task: str) -> dict[str, Any]:
    """Returns change → effect of the mined negatives in one task, over queries and seeds."""
    values = {system: np.array([run["figures"][task] for run in found]) for system, found in runs.items()}
    gaps_SN = {f"mined − {other}": values["mined"] - values[other] for other in ("random", "pairs")}
    by_seed = {name: gap.mean(axis=1).tolist() for name, gap in gaps_SN.items()}
    draws = {name: mean_draws(gap.mean(axis=0)) for name, gap in gaps_SN.items()}
    return part_effects(by_seed, draws, values["mined"].shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--train", default="python:installed")
    parser.add_argument("--test", default="python:stdlib")
    parser.add_argument("--hold-out", metavar="COLUMN")
    parser.add_argument("--pairs", type=int, default=8_000)
    parser.add_argument("--limit", type=int, help="the number of test pairs; by default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--teacher")
    parser.add_argument("--negatives", type=int, default=1)
    parser.add_argument("--relative-margin", type=float, default=0.05)
    parser.add_argument("--range-max", type=int, default=30)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path("runs/mined"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    pairs, test = sources(options)
    tasks: list[Any] = [PairsTask("held out", list(test["anchor"]), list(test["positive"]))]
    if options.train == "python:installed" and (options.data / "cosqa_retrieval_dev").is_dir():
        tasks += tasks_from([f"retrieval={options.data / 'cosqa_retrieval_dev'}"])[0]
    rows = mined_rows(pairs, options)
    found: dict[str, Any] = {}
    untouched = DenseSystem("untouched", open_teacher(starter_checkpoint()[0]).model)
    for name, system in (("BM25", BM25System()), ("untouched", untouched)):
        found[name] = {task: float(np.mean(values)) for task, values in measured(system, tasks).items()}
        print(f"{name:10} {json.dumps({task: round(value, 4) for task, value in found[name].items()})}", flush=True)
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
    for seed in range(options.seeds):
        for way in SYSTEMS:
            runs[way].append(trained(rows, way, seed, options, tasks))
    found |= {
        way: {task.name: [float(np.mean(run["figures"][task.name])) for run in own] for task in tasks}
        for way, own in runs.items()
    }
    effects: dict[str, Any] = {}
    for task in tasks:
        for name, effect in differences(runs, task.name).items():
            low, high = effect.ci
            print(f"{task.name}: {name} {effect.value:+.4f} ({low:+.4f} to {high:+.4f}), {effect.n} queries")
            effects.setdefault(task.name, {})[name] = {"value": effect.value, "ci": effect.ci, "seeds": effect.seeds}
    if options.json:
        facts = {"mining": read_json(options.work / "mining.json"), "environment": environment()}
        write_json(options.json, {"systems": found, "effects": effects, **facts})


if __name__ == "__main__":
    main()
