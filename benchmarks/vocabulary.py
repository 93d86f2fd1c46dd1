"""The cost of a new vocabulary for a trained model: STS-B dev of MiniLM with a vocabulary from different texts.

    python benchmarks/vocabulary.py [--sizes 8000 30000] [--kind unigram] [--seeds 3] [--steps 0] [--data FOLDER]

FOLDER contains `stsb/` (train and dev, sentence1, sentence2, score) and the text sources of `TEXTS`; by default
$SPECTRA_DATA, otherwise ../shared/data. The tokenizer is trained on the docstrings and functions of the standard
library and on the sentences of the training splits of wiki_split and STS-B, never on the evaluation data. The token
vectors are initialized in one of three ways: from the old ones by matching pieces (`models.vocabulary`), from exactly
matching pieces only with the others random, or all random with the mean and standard deviation of the old ones. With
`--steps` each model is also trained for that many steps of CoSENT on the training split of STS-B and evaluated again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.results import environment
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.run import evaluate
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.evaluation.tasks import tasks_from
from spectra_nsa.models.vocabulary import with_vocabulary
from spectra_nsa.models.warm_start import warm_start
from spectra_nsa.text.corpus import Corpus
from spectra_nsa.tokens.train import TokenizerSpec, train_tokenizer
from spectra_nsa.training.data.rows import load_training_data
from spectra_nsa.training.jobs.pairs import build_trainer
from spectra_nsa.training.loop.plan import RunSetup

TEXTS = ("wiki_split/train.jsonl.gz", "stsb/train.jsonl.gz")
WAYS = ("matched", "matched, others random", "random")


def start(words: Any, way: str) -> tuple[Any, dict[str, int]]:
    """Returns MiniLM with a new tokenizer, with token vectors by one of `WAYS`."""
    model = warm_start(starter_checkpoint()[0])
    old = model.spectra.get_input_embeddings().weight.detach().clone()
    model, transfer = with_vocabulary(model, words)
    table = model.spectra.get_input_embeddings().weight
    drawn = old.mean(0) + old.std(0) * torch.randn(table.shape)
    chance = torch.tensor([way == "random" or len(parts) != 1 for parts in transfer.parts])
    if way != "matched":
        with torch.no_grad():
            table[chance] = drawn[chance]
    return model, transfer.summary


def spearman(model: Any, data: Path) -> float:
    """Returns Spearman on STS-B dev."""
    tasks, notes = tasks_from([f"sts={data / 'stsb' / 'dev.jsonl.gz'}"])
    found = evaluate([DenseSystem("model", model)], tasks, notes=notes).results
    return next(one.value for one in found if one.metric == "spearman")


def trained(model: Any, steps: int, seed: int, data: Path) -> Any:
    """Trains the model for some steps on the training split of STS-B."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [f"data.train={data / 'stsb' / 'train.jsonl.gz'}", "data.dev_rows=0", f"train.max_steps={steps}"]
        keys += ["train.batch=32", "train.lr=1e-4", "monitor.rows=0", f"train.seed={seed}", f"output={folder}"]
        recipe = load_recipe(None, [*keys, "model.start=unused"])
        rows = load_training_data(recipe.data, seed=seed, quarantine=None)
        build_trainer(recipe, model, rows, RunSetup(folder=Path(folder) / "run")).train()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8_000, 30_000])
    parser.add_argument("--kind", default="unigram")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    original = spearman(warm_start(starter_checkpoint()[0]), options.data)
    print(f"STS-B dev, Spearman: MiniLM with its own 30,522 pieces {original:.4f}", flush=True)
    rows: list[dict[str, Any]] = [{"way": "own", "before": original}]
    corpus = Corpus(["python:stdlib", *(str(options.data / name) for name in TEXTS)])
    for size in options.sizes:
        words = train_tokenizer(corpus, TokenizerSpec(kind=options.kind, vocab_size=size))
        for way, seed in itertools.product(WAYS, range(options.seeds)):
            if way == "matched" and seed and not options.steps:
                continue  # it does not depend on the seed
            set_seed(seed)
            model, counts = start(words, way)
            row = {"size": size, "way": way, "seed": seed, "before": spearman(model, options.data), **counts}
            if options.steps:
                row["after"] = spearman(trained(model, options.steps, seed, options.data), options.data)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if options.json:
        document = {"environment": environment(), "kind": options.kind, "steps": options.steps, "rows": rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
