"""Does `ranking` find what `semantic` does not? Trained on docstring, function and a hard negative chosen by BM25.

    python benchmarks/ranking.py [KEY=VALUE ...] [--pairs 1200] [--dev 800] [--seeds 1]

Pairs of the installed packages but for a few, with the best function by BM25 that is not the right one as a negative;
measured on pairs of those few, whose docstrings have to find their function among all of theirs. Prints nDCG@10 of both
outputs a seed, and ranking − semantic, paired.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
from datasets import Dataset

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.ranked import DEPTH, ranking_figures
from spectra_nsa.evaluation.systems import nearest
from spectra_nsa.metrics.bootstrap import paired_difference
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.models.starter import starter_checkpoint
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.python_env import environment_pairs
from spectra_nsa.training.data import TrainingData
from spectra_nsa.training.precision import autocast, resolve_precision
from spectra_nsa.training.run import train
from spectra_nsa.workflows.quickstart import PER_PACKAGE, QUICKSTART_RECIPE

DEV_PACKAGES = {"networkx", "rich", "pip", "setuptools", "datasets", "fsspec"}


def with_negatives(rows: Dataset) -> Dataset:
    """Each row with the best other function of the rows by BM25."""
    functions = list(rows["positive"])
    found = BM25System().search(list(rows["anchor"]), functions, 5)
    negatives = []
    for own, hits in enumerate(found.index.tolist()):
        other = [at for at in hits if at >= 0 and functions[at] != functions[own]]
        negatives.append(functions[other[0] if other else (own + 1) % len(functions)])
    return rows.select_columns(["anchor", "positive"]).add_column("negative", negatives)


def figures(model: SpectraSentenceTransformer, rows: Dataset) -> dict[str, np.ndarray]:
    names, functions = ("semantic", "ranking"), list(dict.fromkeys(rows["positive"]))
    queries = [f"q{at}" for at in range(len(rows))]
    documents = {text: f"d{at}" for at, text in enumerate(functions)}
    qrels = {query: {documents[text]: 1} for query, text in zip(queries, rows["positive"], strict=True)}
    with autocast(model.device.type, resolve_precision("auto")):
        asked = model.encode_query(list(rows["anchor"]), outputs=names)
        found = model.encode_document(functions, outputs=names)
    rankings = {name: nearest(asked[name], found[name], DEPTH) for name in names}
    return {
        name: ranking_figures(each, queries, list(documents.values()), qrels)["ndcg@10"]
        for name, each in rankings.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--pairs", type=int, default=1_200)
    parser.add_argument("--dev", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    rows = environment_pairs("installed", per_package=PER_PACKAGE).dataset.shuffle(seed=0)
    is_dev = np.array([group in DEV_PACKAGES for group in rows["group"]])
    dev, rest = rows.select(np.flatnonzero(is_dev)[: options.dev]), rows.select(np.flatnonzero(~is_dev))
    rest = rest.select(np.flatnonzero(~near_duplicates(list(rest["positive"]), list(dev["positive"]))))
    texts = with_negatives(rest.select(range(min(options.pairs, len(rest)))))
    start, _ = starter_checkpoint()
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            flags = {"model.start": str(start), "output": folder, "name": "try", "train.seed": seed}
            flags |= {"data.dev_rows": 0, "data.group": None}
            recipe = load_recipe(QUICKSTART_RECIPE, options.changes, flags=flags)
            result = train(recipe, data=TrainingData(train=texts, dev=None, dev_kind=None, quarantined=0))
        values = figures(result.model, dev)
        gap = paired_difference(values["ranking"], values["semantic"])
        means = "  ".join(f"{name} {each.mean():.4f}" for name, each in values.items())
        print(f"seed {seed}: {means}  {gap.value:+.4f} ({gap.ci[0]:+.4f} to {gap.ci[1]:+.4f})", flush=True)
        print(f"  {result.steps} steps, {len(texts):,} triplets, {result.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
