"""Trains sparse encoders on docstrings and functions; measures held-out packages, CoSQA dev and, at the end, a test.

    python benchmarks/sparse_training.py [KEY=VALUE ...] [--start tiny] [--pairs 30000] [--seeds 1] [--free] [--test]
        [--keep FOLDER]

The recipe is that of `spectra quickstart --sparse`, one epoch. `--free` trains an inference-free model from each, for
another epoch. Choices are made on the held-out packages. `--test` adds the standard library, for the final figure.
Prints one JSON line per model with nDCG@10 and the mean active terms of both sides for each set, and the CPU seconds of
the training. BM25 comes first, on the same sets. FOLDER receives the models of the last seed.
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

from datasets import Dataset
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

COSQA = Path(os.environ.get("SPECTRA_DATA", "../shared/data")) / "cosqa_retrieval_dev"


def tasks(dev: Dataset, test: Dataset | None) -> dict[str, Any]:
    """Returns the tasks by name; CoSQA only if its folder is there."""
    found: dict[str, Any] = {"dev packages": PairsTask("dev packages", list(dev["anchor"]), list(dev["positive"]))}
    if COSQA.is_dir():
        found["CoSQA dev"] = RetrievalTask(load_beir(COSQA, None))
    if test is not None:
        found["standard library"] = PairsTask("standard library", list(test["anchor"]), list(test["positive"]))
    return found


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
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    rest, dev = split_packages(options.pairs)
    sets = tasks(dev, load_pairs().test if options.test else None)
    bm25 = {name: measure(BM25System(), task) for name, task in sets.items()}
    print(json.dumps({"system": "bm25", **bm25}), flush=True)
    data = TrainingData(
        train=rest.select_columns(["anchor", "positive"]),
        dev=None,
        dev_kind=None,
        quarantined=0,
        groups=list(rest["group"]),
    )
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            start, kinds = options.start, ["splade", "inference_free"] if options.free else ["splade"]
            for kind in kinds:
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
