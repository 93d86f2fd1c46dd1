"""Do experts help a model that learns several domains at once? An interference ladder from MiniLM.

    python benchmarks/experts_interference.py [--arms ARM …] [--seeds 0 1 2] [--split dev|test] [--pairs 2400]
        [--output FOLDER] [--keep] [KEY=VALUE …]

All arms see the same pairs of six domains (`experts_domains.py`) in the same batches, each of one domain, and have
the same learning rate unless a KEY=VALUE says otherwise. Experts replace the networks of every second layer: six of
them, one for each token or text.

| arm | what it is |
|---|---|
| dense | the plain model |
| wide | feed-forward networks as wide as all parameters of the experts together; the added half starts silent |
| specialists | six plain models, each trained on its own domain for a sixth of the steps |
| oracle | the expert is the domain of the text, which is given |
| text, smear | a learned choice, or mixture of weights, for each text by its input embeddings or states |
| text_hash | a fixed random choice for each text |
| token, hash | a learned choice for each token, or a fixed one by its id |

Each line of `FOLDER/results.jsonl` has nDCG@10 of an arm and a seed, by domain, in the index of all domains
(`mixed`) and in its own (`own`); specialists have only `own`. `FOLDER/ARM-SEED.npz` has the figures of the queries.
Lines that exist are not computed again. `experts_report.py` compares the arms.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from experts_domains import Domain, load_domains

import spectra_nsa as sp
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.encoder.context import make_context, text_keys
from spectra_nsa.encoder.experts.router import Router
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraModel
from spectra_nsa.training.data.training_data import TrainingData
from spectra_nsa.training.run import train

EXPERTS = ["model.ffn=moe", "model.experts.count=6", "model.experts.every=2"]
ARMS: Mapping[str, list[str]] = {
    "dense": [],
    "wide": [],
    "specialists": [],
    "oracle": [*EXPERTS, "model.experts.router=text_hash"],
    "text": [*EXPERTS, "model.experts.router=text"],
    "smear": [*EXPERTS, "model.experts.router=smear"],
    "text_hash": [*EXPERTS, "model.experts.router=text_hash"],
    "token": EXPERTS,
    "hash": [*EXPERTS, "model.experts.router=hash"],
}
COMMON = [
    "model.max_length=64", "train.batch=48", "train.accumulation=2", "train.passes_per_batch=2",
    "train.epochs=1", "train.lr=1e-4",
    "data.dev_rows=0", "data.group=domain", "train.fit_heads=0",
    "model.anchor=false", "model.bridge=false", "model.ranking=false", "model.entity=false", "model.anomaly=false",
]  # fmt: skip
SIX = 6


class Oracle:
    """Sends each text to the expert of its domain, while it is on.

    Args:
        domains: whose texts it knows.
        tokenizer: the model's.
    """

    def __init__(self, domains: Mapping[str, Domain], tokenizer: Any) -> None:
        self.domain_of: dict[int, int] = {}
        for number, domain in enumerate(domains.values()):
            pairs = [*domain.train, *domain.dev, *domain.test]
            for texts in ([text for pair in pairs for text in pair], domain.others):
                for start in range(0, len(texts), 512):
                    batch = tokenizer(
                        texts[start : start + 512], truncation=True, max_length=64, padding=True, return_tensors="pt"
                    )
                    context = make_context(batch["attention_mask"], None)
                    keys = text_keys(replace(context, ids_BT=batch["input_ids"]))
                    self.domain_of |= dict.fromkeys(keys.tolist(), number)
        self.plain = Router._logits
        self.unknown = 0

    def __enter__(self) -> Oracle:
        def logits(router: Router, x_MD: torch.Tensor, ids_M: torch.Tensor) -> torch.Tensor:
            self.unknown += sum(int(key) not in self.domain_of for key in ids_M.tolist())
            numbers = torch.tensor([self.domain_of.get(int(key), 0) for key in ids_M.tolist()], dtype=torch.long)
            return 20.0 * F.one_hot(numbers, SIX).float()

        Router._logits = logits  # type: ignore[assignment,method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        Router._logits = self.plain  # type: ignore[method-assign]


def widened(folder: Path, start: str) -> str:
    """Saves MiniLM with networks of the width that gives them as many parameters as six experts in every second layer.

    The added rows of the first matrix are random and the added columns of the second are zero, so that the output is
    the same.
    """
    model = sp.warm_start(start)
    old = model.spectra
    config = SpectraConfig(**(old.config.to_dict() | {"intermediate_size": old.config.intermediate_size * 7 // 2}))
    new = SpectraModel(config)
    state = new.state_dict()
    for name, value in old.state_dict().items():
        if state[name].shape != value.shape:
            grown = (
                torch.randn(state[name].shape) * 0.02 if name.endswith("up.weight") else torch.zeros_like(state[name])
            )
            grown[tuple(slice(0, size) for size in value.shape)] = value
            value = grown
        state[name] = value
    new.load_state_dict(state)
    model[0].model = new  # type: ignore[union-attr]
    model.save_pretrained(str(folder))
    return str(folder)


def rows_of(domains: Mapping[str, Domain]) -> TrainingData:
    """Returns the training pairs, with their domain as group."""
    rows = [(*pair, name) for name, domain in domains.items() for pair in domain.train]
    table = Dataset.from_dict({"anchor": [row[0] for row in rows], "positive": [row[1] for row in rows]})
    return TrainingData(train=table, dev=None, dev_kind=None, quarantined=0, groups=[row[2] for row in rows])


def vectors_of(model: Any, texts: list[str]) -> np.ndarray:
    with autocast(resolve_precision("auto"), model.device):
        found: np.ndarray = model.encode(texts, batch_size=64, show_progress_bar=False)
    return found


def ndcg(queries: np.ndarray, documents: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Returns nDCG@10 of each query, which has one right document; ties count as the mean of their ranks."""
    scores = queries @ documents.T
    right = scores[np.arange(len(scores)), own][:, None]
    rank = (scores > right).sum(1) + ((scores == right).sum(1) - 1) / 2
    return np.where(rank < 10, 1 / np.log2(rank + 2), 0.0)


def measure(models: Mapping[str, Any], domains: Mapping[str, Domain], split: str) -> dict[str, dict[str, np.ndarray]]:
    """Returns by index and domain the figure of each query.

    Args:
        models: one for each domain, which may all be the same.
        domains: to measure.
        split: ``"dev"`` or ``"test"``.
    """
    queries, documents = {}, {}
    for name, domain in domains.items():
        pairs = domain.test if split == "test" else domain.dev
        queries[name] = vectors_of(models[name], [query for query, _ in pairs])
        documents[name] = vectors_of(models[name], [document for _, document in pairs] + domain.others)
    found: dict[str, dict[str, np.ndarray]] = {"own": {}}
    for name in domains:
        found["own"][name] = ndcg(queries[name], documents[name], np.arange(len(queries[name])))
    if len({id(model) for model in models.values()}) == 1:
        everything, start, found["mixed"] = np.concatenate(list(documents.values())), 0, {}
        for name in domains:
            found["mixed"][name] = ndcg(queries[name], everything, start + np.arange(len(queries[name])))
            start += len(documents[name])
    return found


def run(arm: str, seed: int, domains: Mapping[str, Domain], changes: list[str], keep: Path | None) -> tuple[Any, float]:
    """Trains an arm; returns its model, or one for each domain, and the CPU seconds."""
    start = str(starter_checkpoint()[0])
    with tempfile.TemporaryDirectory() as folder:
        if arm == "wide":
            start = widened(Path(folder) / "wide", start)
        flags = {"model.start": start, "output": folder, "name": arm, "train.seed": seed}
        recipe = load_recipe(None, [*COMMON, *ARMS[arm], *changes], flags=flags)
        begin = time.process_time()
        if arm == "specialists":
            model: Any = {name: train(recipe, data=rows_of({name: domains[name]})).model for name in domains}
        else:
            model = train(recipe, data=rows_of(domains)).model
        seconds = time.process_time() - begin
    if keep and not isinstance(model, dict):
        model.save_pretrained(str(keep / f"{arm}-{seed}"))
    return model, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--pairs", type=int, default=2400, help="training pairs of a domain")
    parser.add_argument("--output", type=Path, default=Path("runs/experts-interference"), metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="save the models")
    options = parser.parse_args()
    domains = load_domains(options.pairs)
    options.output.mkdir(parents=True, exist_ok=True)
    results = options.output / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    oracle: Oracle | None = None
    for seed in options.seeds:
        for arm in options.arms:
            key = {"arm": arm, "seed": seed, "split": options.split, "changes": options.changes}
            key |= {"pairs": options.pairs}
            if any(all(line[name] == value for name, value in key.items()) for line in done):
                continue
            if arm == "oracle":
                oracle = oracle or Oracle(domains, sp.warm_start(str(starter_checkpoint()[0])).tokenizer)
                with oracle:
                    model, seconds = run(arm, seed, domains, options.changes, options.output if options.keep else None)
                    oracle.unknown = 0
                    found = measure(dict.fromkeys(domains, model), domains, options.split)
                assert not oracle.unknown, f"{oracle.unknown} texts of no known domain"
            else:
                model, seconds = run(arm, seed, domains, options.changes, options.output if options.keep else None)
                models = model if isinstance(model, dict) else dict.fromkeys(domains, model)
                found = measure(models, domains, options.split)
            figures = {
                index: {name: round(float(values.mean()), 4) for name, values in of.items()}
                for index, of in found.items()
            }
            means = {f"{index}_mean": round(float(np.mean(list(of.values()))), 4) for index, of in figures.items()}
            if not options.changes:
                arrays = {f"{index}/{name}": values for index, of in found.items() for name, values in of.items()}
                np.savez_compressed(options.output / f"{arm}-{seed}-{options.split}.npz", **arrays)
            line = json.dumps(key | means | {"cpu_seconds": round(seconds)} | figures)
            with results.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
