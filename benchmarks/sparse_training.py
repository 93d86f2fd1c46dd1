"""Trains sparse encoders on docstrings and functions; measures held-out packages, CoSQA dev and, at the end, a test.

    python benchmarks/sparse_training.py [KEY=VALUE ...] [--start tiny] [--pairs 30000] [--seeds 0 1 2] [--test]
        [--kinds splade inference_free] [--questions codenn_python] [--keep FOLDER]

The recipe is that of `spectra quickstart --sparse`, one epoch. Of two `--kinds` the second model starts from the first
and has an epoch of its own. `--questions` mixes in the question → code pairs of public datasets. Choices are made on
the held-out packages. `--test` adds the standard library, for the final figure.
Prints one JSON line per model with nDCG@10 and the mean active terms of both sides for each set, and the CPU seconds of
the training. BM25 comes first, on the same sets. FOLDER receives the models, those of the last seed if there are
several.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from dev_packages import split_packages

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.evaluation.sparse.system import SparseSystem
from spectra_nsa.evaluation.systems import Ranking
from spectra_nsa.text.beir import load_beir
from spectra_nsa.training.data.training_data import TrainingData
from spectra_nsa.training.run import train
from spectra_nsa.workflows.quickstart.data import load_pairs
from spectra_nsa.workflows.quickstart.sparse import SPARSE_RECIPE

DATA = Path(os.environ.get("SPECTRA_DATA", "../shared/data"))
COSQA = DATA / "cosqa_retrieval_dev"


def tasks(dev: Dataset, test: Dataset | None) -> dict[str, Any]:
    """Returns the tasks by name; CoSQA only if its folder is there."""
    found: dict[str, Any] = {"dev packages": PairsTask("dev packages", list(dev["anchor"]), list(dev["positive"]))}
    if COSQA.is_dir():
        found["CoSQA dev"] = RetrievalTask(load_beir(COSQA, None))
    if test is not None:
        found["standard library"] = PairsTask("standard library", list(test["anchor"]), list(test["positive"]))
    return found


def training_pairs(rows: Dataset, questions: Sequence[str]) -> TrainingData:
    """Returns docstring → code pairs, and the question → code pairs of datasets as groups of their own."""
    parts = [rows.select_columns(["anchor", "positive", "group"])]
    for name in questions:
        pairs = Dataset.from_json(str(next((DATA / name).glob("train.jsonl*"))))
        columns = {"anchor": pairs["anchor"][:], "positive": pairs["positive"][:], "group": [name] * len(pairs)}
        parts.append(Dataset.from_dict(columns, features=parts[0].features))
    mixed = concatenate_datasets(parts)
    return TrainingData(
        train=mixed.select_columns(["anchor", "positive"]),
        dev=None,
        dev_kind=None,
        quarantined=0,
        groups=list(mixed["group"]),
    )


class _Counting:
    """A sparse system that notes the active terms of what it searches."""

    def __init__(self, system: SparseSystem, active: dict[str, float]) -> None:
        self.system, self.active, self.name = system, active, system.name

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        for role, rows in zip(("query", "document"), self.system.sparse_rows(queries, documents), strict=True):
            self.active[f"{role}_active"] = round(rows.nnz / rows.shape[0], 1)
        return self.system.search(queries, documents, k)


def measure(system: Any, task: Any) -> dict[str, float]:
    """Returns nDCG@10, and the active terms of a sparse encoder."""
    active: dict[str, float] = {}
    if isinstance(system, SparseSystem):
        system = _Counting(system, active)
    outcome = task.run(system)
    figures = {"ndcg@10": round(next(r.value for r in outcome.results if r.metric == "ndcg@10"), 4)}
    return figures | active


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--start", default="tiny")
    parser.add_argument("--pairs", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], metavar="SEED")
    parser.add_argument("--questions", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--kinds", nargs="+", default=["splade"], choices=["splade", "inference_free"], metavar="KIND")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    rest, dev = split_packages(options.pairs)
    sets = tasks(dev, load_pairs().test if options.test else None)
    bm25 = {name: measure(BM25System(), task) for name, task in sets.items()}
    print(json.dumps({"system": "bm25", **bm25}), flush=True)
    data = training_pairs(rest, options.questions)
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            start = options.start
            for kind in options.kinds:
                flags = {"model.start": start, "output": folder, "name": kind, "train.seed": seed, "sparse.kind": kind}
                recipe = load_recipe(SPARSE_RECIPE, options.changes, flags={**flags, "data.dev_rows": 0})
                begin = time.process_time()
                result = train(recipe, data=data)
                seconds = time.process_time() - begin
                start = str(options.keep / kind if options.keep else result.folder / "model")
                if options.keep:
                    result.model.save_pretrained(start)
                system = SparseSystem(kind, result.model, precision="auto")
                figures = {name: measure(system, task) for name, task in sets.items()}
                facts = {"kind": kind, "start": options.start, "seed": seed, "steps": result.steps}
                facts |= {"cpu_seconds": round(seconds)}
                print(json.dumps(facts | figures | {"changes": options.changes}), flush=True)


if __name__ == "__main__":
    main()
