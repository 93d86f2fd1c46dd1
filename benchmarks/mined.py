"""What mined negatives are worth: training on the same rows, for the same steps, with and without them.

    python benchmarks/mined.py [KEY=VALUE ...] [--pairs 8000] [--seeds 1] [--teacher MODEL] [--negatives 1]
                               [--relative-margin 0.05] [--limit N] [--data FOLDER]

Pairs of the installed packages are mined with TEACHER (MiniLM by default, or bm25), and MiniLM is trained one pass over
the rows that have negatives, three times a seed: on their pairs alone, with random negatives, and with the mined ones.
`random` is the fair neighbour of `mined`: as many texts a step, as much time. Each is measured on the standard library,
where a docstring must find its function, and on CoSQA's development queries where FOLDER ($SPECTRA_DATA, else
../shared/data) holds them. Prints one JSON line a training.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.evaluation.tasks import tasks_from
from spectra_nsa.models.precision import autocast, resolve_precision
from spectra_nsa.models.starter import starter_checkpoint
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.python_env import environment_pairs
from spectra_nsa.text.sources import load_source
from spectra_nsa.training.data import TrainingData
from spectra_nsa.training.run import train
from spectra_nsa.workflows.mine import mine
from spectra_nsa.workflows.quickstart import PER_PACKAGE, QUICKSTART_RECIPE

if TYPE_CHECKING:
    from datasets import Dataset

SYSTEMS = ("pairs", "random", "mined")


def sources(pairs: int, limit: int | None) -> tuple[Dataset, Dataset]:
    """Training pairs without near-duplicates of the test set, and the test set without repetitions."""
    test = environment_pairs("stdlib").dataset
    twice = near_duplicates(list(test["anchor"]), None) | near_duplicates(list(test["positive"]), None)
    test = test.select(np.flatnonzero(~twice))
    rows = environment_pairs("installed", per_package=PER_PACKAGE).dataset.shuffle(seed=0)
    rows = rows.select(range(min(2 * pairs, len(rows))))  # enough for those that go
    seen = near_duplicates(list(rows["anchor"]), list(test["anchor"]))
    seen |= near_duplicates(list(rows["positive"]), list(test["positive"]))
    rows = rows.select(np.flatnonzero(~seen)[:pairs])
    return rows, test if limit is None else test.select(range(min(limit, len(test))))


def mined_rows(rows: Dataset, folder: Path, options: argparse.Namespace) -> tuple[Dataset, dict[str, Any]]:
    """The rows with negatives, and what the mining says of itself."""
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for anchor, positive in zip(rows["anchor"], rows["positive"], strict=True):
            file.write(json.dumps({"anchor": anchor, "positive": positive}) + "\n")
    teacher = options.teacher or str(starter_checkpoint()[0])
    rules = {"negatives": options.negatives, "relative_margin": options.relative_margin, "range_max": 30}
    facts = mine(folder / "pairs.jsonl", teacher, folder / "mined.jsonl", **rules)
    found = load_source(folder / "mined.jsonl")
    return found.dataset.select_columns(list(found.roles)), facts["counts"]


def with_negatives(rows: Dataset, system: str, seed: int) -> Dataset:
    """The rows of one system; random negatives are other rows' positives."""
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


def measured(model: Any, tasks: Sequence[Any]) -> dict[str, float]:
    """nDCG@10 of each task."""
    found = {}
    for task in tasks:
        with autocast(model.device.type, resolve_precision("auto")):
            outcome = task.run(DenseSystem("trained", model))
        found[task.name] = next(round(r.value, 4) for r in outcome.results if r.metric == "ndcg@10")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--pairs", type=int, default=8_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--teacher")
    parser.add_argument("--negatives", type=int, default=1)
    parser.add_argument("--relative-margin", type=float, default=0.05)
    parser.add_argument("--limit", type=int, help="test pairs of the standard library; by default all")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    options = parser.parse_args()
    pairs, test = sources(options.pairs, options.limit)
    tasks: list[Any] = [PairsTask("standard library", list(test["anchor"]), list(test["positive"]))]
    if (options.data / "cosqa_retrieval_dev").is_dir():
        tasks += tasks_from([f"retrieval={options.data / 'cosqa_retrieval_dev'}"])[0]
    start, _ = starter_checkpoint()
    with tempfile.TemporaryDirectory() as name:
        rows, counts = mined_rows(pairs, Path(name), options)
        print(json.dumps({"mining": counts}), flush=True)
        for seed in range(options.seeds):
            for system in SYSTEMS:
                flags = {"model.start": str(start), "output": name, "name": f"{system}-{seed}", "train.seed": seed}
                changes = ["data.group=null", "data.dev_rows=0", *options.changes]
                recipe = load_recipe(QUICKSTART_RECIPE, changes, flags=flags)
                texts = with_negatives(rows, system, seed)
                result = train(recipe, data=TrainingData(train=texts, dev=None, dev_kind=None, quarantined=0))
                facts = {"system": system, "seed": seed, "steps": result.steps, "seconds": round(result.seconds)}
                print(json.dumps(facts | measured(result.model, tasks)), flush=True)


if __name__ == "__main__":
    main()
