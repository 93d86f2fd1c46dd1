"""Do experts help a student that is too small for what its teacher knows? MiniLM taught to 4 layers of width 128.

    python benchmarks/experts_distillation.py [--arms ARM …] [--seeds 0 1 2] [--share 0.25] [--output FOLDER] [--keep]
        [KEY=VALUE …]

All arms start from random weights with the teacher's token vectors and see the same texts of six domains
(`experts_domains.py`) in the same order, once. They learn the teacher's cosines and vectors, nothing else.

| arm | what it is |
|---|---|
| dense | the preset `small` |
| token | 8 experts of that width in layers 1 to 3, one for each token: as many weights at work |
| wide | a dense student with as many weights in all |
| hash, frozen | as token, but the choice is by token id, or by a random gate that never learns |
| text, smear | one choice for each text, or one mixture of weights |

Each line of `FOLDER/results.jsonl` has, for an arm and a seed, the agreement with the teacher (mean over 500 held-out
texts of each domain of the correlation of a text's cosines to all others with the teacher's), and nDCG@10 of the test
pairs in the index of all domains. `FOLDER/ARM-SEED-SPLIT.npz` has both for each text and query. Lines that exist are
not computed again. `experts_report.py` compares the arms.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from experts_domains import Domain, load_domains, texts_of
from experts_interference import ndcg, vectors_of
from experts_results import Results, parse

import spectra_nsa as sp
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.config.terms import TERM_FACTS
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.models.fresh import fresh_model
from spectra_nsa.training.data.training_data import TrainingData
from spectra_nsa.training.init.words import begin_with_words
from spectra_nsa.training.run import train

ARMS: Mapping[str, dict[str, Any]] = {
    "dense": {},
    "token": {"router": "token"},
    "wide": {"intermediate_size": 512 * 25 // 4},
    "hash": {"router": "hash"},
    "frozen": {"router": "frozen"},
    "text": {"router": "text"},
    "smear": {"router": "smear"},
}
COMMON = [
    "train.batch=64", "train.passes_per_batch=2", "train.epochs=1", "train.lr=3e-3", "train.expert_lr_factor=0.5",
    "train.max_length=64",
    "data.dev_rows=0", "train.fit_heads=0", "monitor.rows=0", "loss.terms.distill_embedding.weight=1",
    "loss.terms.distill_similarity.weight=1",
    "model.anchor=false", "model.bridge=false", "model.ranking=false", "model.entity=false", "model.anomaly=false",
    "model.matryoshka=false",
]  # fmt: skip
TUNED = {"wide": ["train.lr=1e-3"]}  # arms that are better with another rate than `dense`
HELD_OUT = 500  # texts of each domain


def training_rows(share: float) -> Dataset:
    """Returns rows of two texts each, from all domains in random order."""
    domains = ("medical", "shell", "sql", "csharp", "books", "mail")
    texts = [text for name in domains for text in texts_of(name, "train")]
    random.Random(0).shuffle(texts)
    texts = texts[: int(share * len(texts)) // 2 * 2]
    return Dataset.from_dict({"anchor": texts[::2], "positive": texts[1::2]})


def held_out_texts(split: str) -> dict[str, list[str]]:
    """Returns texts of each domain that no student has seen."""
    found = {}
    for name in ("medical", "shell", "sql", "csharp", "books", "mail"):
        texts = texts_of(name, split)
        random.Random(1).shuffle(texts)
        found[name] = texts[:HELD_OUT]
    return found


def start_of(arm: str, seed: int, rows: Dataset, teacher: str) -> Any:
    """Builds a student with random weights and the teacher's token vectors."""
    fields = dict(ARMS[arm])
    if "router" in fields:
        fields = {"ffn": "moe", "experts": {"count": 8, "top_k": 1, "first": 1, "router": fields["router"]}}
    torch.manual_seed(seed)
    model = fresh_model("small", tokenizer=teacher, max_length=64, **fields)
    begin_with_words(model, teacher, rows)
    for at, layer in enumerate(module for module in model.modules() if isinstance(module, ExpertFFN)):
        if layer.router.weight is not None:  # the seed of the gate varies too
            generator = torch.Generator().manual_seed(1000 * seed + at)
            layer.router.weight.data.copy_(0.02 * torch.randn(layer.router.weight.shape, generator=generator))
    return model


def agreement(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Returns for each text the correlation of its cosines to the other texts with the teacher's."""
    rows = []
    for vectors in (student, teacher):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, np.nan)
        cosines = cosines - np.nanmean(cosines, axis=1, keepdims=True)
        rows.append(np.nan_to_num(cosines / np.sqrt(np.nansum(cosines**2, axis=1, keepdims=True))))
    return (rows[0] * rows[1]).sum(1)


def measure(
    model: Any, domains: Mapping[str, Domain], held_out: Mapping[str, list[str]], taught: np.ndarray, split: str
) -> dict[str, Any]:
    """Returns by kind of figure and domain the values of texts or queries."""
    texts = [text for of in held_out.values() for text in of]
    values = agreement(vectors_of(model, texts), taught)
    found: dict[str, Any] = {"agreement": {}, "mixed": {}}
    start = 0
    for name, of in held_out.items():
        found["agreement"][name] = values[start : start + len(of)]
        start += len(of)
    pairs = {name: domain.test if split == "test" else domain.dev for name, domain in domains.items()}
    documents = {
        name: vectors_of(model, [document for _, document in pairs[name]] + domain.others)
        for name, domain in domains.items()
    }
    everything, start = np.concatenate(list(documents.values())), 0
    for name in domains:
        queries = vectors_of(model, [query for query, _ in pairs[name]])
        found["mixed"][name] = ndcg(queries, everything, start + np.arange(len(queries)))
        start += len(documents[name])
    return found


def run(arm: str, seed: int, rows: Dataset, teacher: str, changes: list[str]) -> tuple[Any, float]:
    """Trains an arm; returns its model and the CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start"
        start_of(arm, seed, rows, teacher).save_pretrained(str(start))
        others = [n for n, facts in TERM_FACTS.items() if facts.model_kind == "dense" and not facts.learns_from]
        silent = [f"loss.terms.{name}.weight=0" for name in others if not TERM_FACTS[name].routing]
        flags = {"model.start": str(start), "output": folder, "name": "run", "train.seed": seed}
        flags |= {"distill.teachers": [teacher]}
        recipe = load_recipe(None, [*COMMON, *silent, *TUNED.get(arm, []), *changes], flags=flags)
        begin = time.process_time()
        data = TrainingData(train=rows, dev=None, dev_kind=None, quarantined=0)
        model = train(recipe, data=data).model
        return model, time.process_time() - begin


def main() -> None:
    options = parse(__doc__, list(ARMS), "runs/experts-distillation", share=(0.25, "of the training texts"))
    results = Results(options.output, {"share": 0.25, "changes": []})
    path = str(starter_checkpoint()[0])
    domains, held_out = load_domains(), held_out_texts(options.split)
    rows, teacher = training_rows(options.share), sp.warm_start(path, max_seq_length=64)
    taught = vectors_of(teacher, [text for of in held_out.values() for text in of])
    for seed in options.seeds:
        for arm in options.arms:
            key = {"arm": arm, "seed": seed, "split": options.split, "changes": options.changes, "share": options.share}
            if results.has(key):
                continue
            model, seconds = run(arm, seed, rows, path, options.changes)
            if options.keep:
                model.save_pretrained(str(options.output / results.name(key)))
            results.add(key, measure(model, domains, held_out, taught, options.split), seconds)


if __name__ == "__main__":
    main()
