"""The ranking head compared with `semantic`: trained on hard negatives from BM25, with the encoder frozen.

    python benchmarks/ranking.py [MODEL] [--pairs 3000] [--dev 1500] [--steps 300] [--lr 1e-4] [--seeds 3]

Trains on triplets of a docstring, its function and the best other function by BM25, from the installed packages except
a few. Evaluates on pairs from those: a docstring must find its function among all of them. In normal training the head
passes no gradient to the encoder either, so it can be trained here in the same way on precomputed vectors. Prints
nDCG@10 of both outputs for each seed, and the paired difference ranking − semantic.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from datasets import Dataset

from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.core.starter import HUB_NAME
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.ranked import DEPTH, ranking_figures
from spectra_nsa.evaluation.systems import nearest
from spectra_nsa.heads.ranking import RankingHead
from spectra_nsa.losses.terms.hard_negatives import ranking
from spectra_nsa.metrics.bootstrap import paired_difference
from spectra_nsa.models.open import open_model
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.workflows.quickstart.data import PER_PACKAGE

DEV_PACKAGES = {"networkx", "rich", "pip", "setuptools", "datasets", "fsspec"}
BATCH = 64
TEMPERATURE = 0.05


def rows_of(pairs: int, dev: int) -> tuple[Dataset, Dataset]:
    rows = environment_pairs("installed", per_package=PER_PACKAGE).dataset.shuffle(seed=0)
    is_dev = np.array([group in DEV_PACKAGES for group in rows["group"]])
    held_out = rows.select(np.flatnonzero(is_dev)[:dev])
    rest = rows.select(np.flatnonzero(~is_dev)[:pairs])
    twice = near_duplicates(list(rest["positive"]), list(held_out["positive"]))
    return rest.select(np.flatnonzero(~twice)), held_out


def hard_negatives(anchors: list[str], functions: list[str]) -> list[int]:
    found = BM25System().search(anchors, functions, 5)
    others = [
        [hit for hit in hits if hit >= 0 and functions[hit] != functions[row]]
        for row, hits in enumerate(found.index.tolist())
    ]
    return [hits[0] if hits else (row + 1) % len(functions) for row, hits in enumerate(others)]


def semantic(model: SpectraSentenceTransformer, texts: list[str], *, query: bool) -> torch.Tensor:
    encode = model.encode_query if query else model.encode_document
    with autocast(model.device.type, resolve_precision("auto")):
        vectors = encode(texts, outputs=["semantic"])
    return torch.from_numpy(vectors["semantic"])  # type: ignore[index]


def trained(anchor_ND: torch.Tensor, positive_ND: torch.Tensor, negatives: list[int], options: argparse.Namespace,
            seed: int) -> RankingHead:  # fmt: skip
    set_seed(seed)
    head = RankingHead(anchor_ND.shape[1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, options.steps)
    hard = torch.tensor(negatives)
    for _ in range(options.steps):
        rows = torch.randint(len(anchor_ND), (BATCH,))
        columns = [head(vectors[rows]) for vectors in (anchor_ND, positive_ND, positive_ND[hard])]
        optimizer.zero_grad()
        ranking(columns[0], columns[1], columns[2:], TEMPERATURE).backward()
        optimizer.step()
        schedule.step()
    return head.eval()


def figure(asked_ND: torch.Tensor, found_ND: torch.Tensor, texts: list[str]) -> np.ndarray:
    ids = {text: f"d{i}" for i, text in enumerate(texts)}
    first = [texts.index(text) for text in ids]
    queries = [f"q{i}" for i in range(len(texts))]
    ranking = nearest(asked_ND.numpy(), found_ND[first].numpy(), DEPTH)
    qrels = {query: {ids[text]: 1} for query, text in zip(queries, texts, strict=True)}
    return ranking_figures(ranking, queries, list(ids.values()), qrels)["ndcg@10"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=HUB_NAME)
    parser.add_argument("--pairs", type=int, default=3_000)
    parser.add_argument("--dev", type=int, default=1_500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    model = open_model(options.model)
    model.max_seq_length = min(model.max_seq_length or 128, 128)
    rest, held_out = rows_of(options.pairs, options.dev)
    anchors, positives = (semantic(model, list(rest[side]), query=side == "anchor") for side in ("anchor", "positive"))
    negatives = hard_negatives(list(rest["anchor"]), list(rest["positive"]))
    asked, found = (semantic(model, list(held_out[side]), query=side == "anchor") for side in ("anchor", "positive"))
    before = figure(asked, found, list(held_out["positive"]))
    print(
        f"{len(rest):,} triplets, {len(held_out):,} dev pairs, lr {options.lr}, semantic {before.mean():.4f}",
        flush=True,
    )
    for seed in range(options.seeds):
        head = trained(anchors, positives, negatives, options, seed)
        with torch.no_grad():
            after = figure(head(asked), head(found), list(held_out["positive"]))
        gap = paired_difference(after, before)
        print(f"seed {seed}: ranking {after.mean():.4f}  {gap.value:+.4f} ({gap.ci[0]:+.4f} to {gap.ci[1]:+.4f})")


if __name__ == "__main__":
    main()
