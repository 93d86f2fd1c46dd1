"""Do experts help a model that learns several domains at once? An interference ladder from MiniLM.

    python benchmarks/experts_interference.py [--arms ARM …] [--seeds 0 1 2] [--split dev|test] [--pairs 1200]
        [--output FOLDER] [--keep] [KEY=VALUE …]

All arms see the same pairs of six domains (`experts_domains.py`) in the same mixed batches, and have the same learning
rate, unless a KEY=VALUE says otherwise. Experts replace the networks of every second layer: six of
them, one for each token or text.

| arm | what it is |
|---|---|
| dense | the plain model |
| wide | feed-forward networks as wide as all parameters of the experts together; what is added starts silent |
| specialists | six plain models, each trained on its own domain for a sixth of the steps |
| oracle | the expert is the domain of the text, which is given |
| text, smear | a learned choice, or mixture of weights, for each text by its input embeddings or states |
| text_hash | a fixed random choice for each text |
| token, hash | a learned choice for each token, or a fixed one by its id |

Each line of `FOLDER/results.jsonl` has nDCG@10 of an arm and a seed, by domain, in the index of all domains
(`mixed`) and in its own (`own`); specialists have only `own`. `FOLDER/ARM-SEED-SPLIT.npz` has the figures of the
queries. Lines that exist are not computed again. `experts_report.py` compares the arms.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from experts_domains import Domain, load_domains
from experts_results import Results, parse

import spectra_nsa as sp
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.encoder.context import make_context, text_keys
from spectra_nsa.encoder.experts.router import Router
from spectra_nsa.metrics.known_item import known_item_ndcg
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
    "model.max_length=64", "train.batch=48", "train.accumulation=2",
    "train.epochs=1", "train.lr=1e-4",
    "data.dev_rows=0", "train.fit_heads=0",
    "model.anchor=false", "model.bridge=false", "model.ranking=false", "model.entity=false", "model.anomaly=false",
]  # fmt: skip
SIX, PAIRS = 6, 1200


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
                    keys = text_keys(replace(context, ids_BT=batch["input_ids"])).tolist()
                    clash = [key for key in keys if self.domain_of.get(key, number) != number]
                    assert not clash, f"{len(clash)} texts have the key of a text of another domain"
                    self.domain_of |= dict.fromkeys(keys, number)
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


def widened(folder: Path, start: str, seed: int) -> str:
    """Saves MiniLM with networks of the width that gives them as many parameters as six experts in every second layer.

    The added rows of the first matrix are random and the added columns of the second are zero, so that the output is
    the same.
    """
    torch.manual_seed(seed)
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
    """Returns the training pairs of all domains."""
    pairs = [pair for domain in domains.values() for pair in domain.train]
    table = Dataset.from_dict(
        {"anchor": [query for query, _ in pairs], "positive": [document for _, document in pairs]}
    )
    return TrainingData(train=table, dev=None, dev_kind=None, quarantined=0)


def vectors_of(model: Any, texts: list[str]) -> np.ndarray:
    with autocast(model.device.type, resolve_precision("auto")):
        found: np.ndarray = model.encode(texts, batch_size=64, show_progress_bar=False)
    return found


def ndcg(queries: np.ndarray, documents: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Returns nDCG@10 of each query, which has one right document."""
    return known_item_ndcg(queries @ documents.T, own)


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


def run(arm: str, seed: int, domains: Mapping[str, Domain], changes: list[str]) -> tuple[Any, float]:
    """Trains an arm; returns its model, or one for each domain, and the CPU seconds."""
    start = str(starter_checkpoint()[0])
    with tempfile.TemporaryDirectory() as folder:
        if arm == "wide":
            start = widened(Path(folder) / "wide", start, seed)

        def trained(name: str, of: Mapping[str, Domain]) -> Any:
            flags = {"model.start": start, "output": folder, "name": name, "train.seed": seed}
            return train(load_recipe(None, [*COMMON, *ARMS[arm], *changes], flags=flags), data=rows_of(of)).model

        begin = time.process_time()
        if arm == "specialists":
            model: Any = {name: trained(name, {name: domain}) for name, domain in domains.items()}
        else:
            model = trained(arm, domains)
        return model, time.process_time() - begin


def main() -> None:
    options = parse(__doc__, list(ARMS), "runs/experts-interference", pairs=(PAIRS, "training pairs of a domain"))
    domains = load_domains(options.pairs)
    results = Results(options.output, {"pairs": PAIRS, "changes": []})
    oracle = Oracle(domains, sp.warm_start(str(starter_checkpoint()[0])).tokenizer)
    for seed in options.seeds:
        for arm in options.arms:
            key = {"arm": arm, "seed": seed, "split": options.split, "changes": options.changes, "pairs": options.pairs}
            if results.has(key):
                continue
            with oracle if arm == "oracle" else nullcontext():
                model, seconds = run(arm, seed, domains, options.changes)
                oracle.unknown = 0
                models = model if isinstance(model, dict) else dict.fromkeys(domains, model)
                found = measure(models, domains, options.split)
            assert not oracle.unknown, f"{oracle.unknown} texts of no known domain"
            if options.keep and arm not in ("specialists", "oracle"):  # an oracle does not fit into a saved model
                model.save_pretrained(str(options.output / results.name(key)))
            results.add(key, found, seconds)


if __name__ == "__main__":
    main()
