"""Tests a change to the recipe of the quickstart on held-out packages. The standard library stays unseen.

    python benchmarks/quickstart_dev.py [KEY=VALUE ...] [--pairs 8000] [--seeds 1] [--keep FOLDER]

Trains on pairs from the installed packages except a few, and measures nDCG@10 on 2,500 pairs from those: a docstring
must find its function among all of them. Prints one JSON line per seed: dev figure, pairs, seconds. FOLDER receives the
model of the last seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile

from dev_packages import split_packages

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.training.data.rows import TrainingData
from spectra_nsa.training.run import train
from spectra_nsa.workflows.quickstart.run import QUICKSTART_RECIPE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--pairs", type=int, default=8_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--keep", metavar="FOLDER")
    options = parser.parse_args()
    rest, dev = split_packages(options.pairs)
    start, _ = starter_checkpoint()
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            flags = {"model.start": str(start), "output": folder, "name": "try", "train.seed": seed, "data.dev_rows": 0}
            recipe = load_recipe(QUICKSTART_RECIPE, options.changes, flags=flags)
            texts = rest.select_columns(["anchor", "positive"])
            groups = list(rest["group"]) if recipe.data.group else None
            data = TrainingData(train=texts, dev=None, dev_kind=None, quarantined=0, groups=groups)
            result = train(recipe, data=data)
        if options.keep:
            result.model.save_pretrained(options.keep)
        task = PairsTask("dev packages", list(dev["anchor"]), list(dev["positive"]))
        outcome = task.run(DenseSystem("trained", result.model, precision="auto"))
        figure = next(r.value for r in outcome.results if r.metric == "ndcg@10")
        facts = {"seed": seed, "ndcg@10": round(figure, 4), "pairs": len(texts), "seconds": round(result.seconds)}
        print(json.dumps(facts | {"changes": options.changes}), flush=True)


if __name__ == "__main__":
    main()
