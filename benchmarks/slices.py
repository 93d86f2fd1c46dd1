"""nDCG@10 of each output for queries that depend on a rare term and for the rest, and the similarity of outputs.

    python benchmarks/slices.py [MODEL] [--data FOLDER] [--only NAME …] [--limit 1500] [--fit]

MODEL is a saved model or a checkpoint, by default MiniLM. FOLDER contains the public collections; by default
$SPECTRA_DATA, otherwise ../shared/data. `evaluation/slices.py` defines the slice. The queries of `stdlib` are the
docstrings of functions, those of `names` their qualified names. Each collection has at most --limit documents, relevant
ones first, and texts are cut at 128 tokens. An untrained entity head is fitted to the documents of each collection,
without queries, like the document frequencies of BM25; --fit does this for a trained head too. "beside" is
cos(semantic) + 0.5 cos(entity). Differences are relative to semantic, paired, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
from pathlib import Path

import numpy as np
from datasets import Dataset

from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.core.starter import HUB_NAME
from spectra_nsa.evaluation.bm25 import BM25System
from spectra_nsa.evaluation.ranked import DEPTH, ranking_figures
from spectra_nsa.evaluation.slices import rare_term_slice
from spectra_nsa.evaluation.systems import Ranking, nearest
from spectra_nsa.metrics.bootstrap import paired_difference
from spectra_nsa.metrics.cka import linear_cka
from spectra_nsa.metrics.ranking import judged_queries
from spectra_nsa.models.open import open_model
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.text.beir import load_beir
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.readers.python_env import environment_pairs
from spectra_nsa.text.rows import RetrievalSet
from spectra_nsa.training.init.rarity import fit_rarity

BEIR = ("cosqa_retrieval_dev", "cranfield", "medline")
NAMES = ("medquad", *BEIR, "stdlib", "names")
OUTPUTS = ("embedding", "semantic", "entity", "ranking", "anchor64")
BESIDE = 0.5


def from_pairs(name: str, rows: list[tuple[str, str]]) -> RetrievalSet:
    documents = {text: f"d{i}" for i, text in enumerate(dict.fromkeys(document for _, document in rows))}
    queries = {text: f"q{i}" for i, text in enumerate(dict.fromkeys(query for query, _ in rows))}
    qrels: dict[str, dict[str, int]] = {}
    for query, document in rows:
        qrels.setdefault(queries[query], {})[documents[document]] = 1
    corpus, asked = ({key: text for text, key in side.items()} for side in (documents, queries))
    return RetrievalSet(name=name, corpus=corpus, queries=asked, qrels=qrels, split="", quarantined=0, missing=0)


def collection(name: str, data: Path, limit: int) -> RetrievalSet:
    if name in BEIR:
        return load_beir(data / name)
    draw = random.Random(0)
    if name == "medquad":
        with gzip.open(data / name / "train.jsonl.gz", "rt", encoding="utf-8") as file:
            pairs = [(row["anchor"], row["positive"]) for row in map(json.loads, file)]
    else:
        rows = environment_pairs("stdlib").dataset
        twice = near_duplicates(list(rows["anchor"]), None) | near_duplicates(list(rows["positive"]), None)
        rows = rows.select(np.flatnonzero(~twice))
        pairs = list(zip(rows["name" if name == "names" else "anchor"], rows["positive"], strict=True))
    draw.shuffle(pairs)
    return from_pairs(name, pairs[:limit])


def documents_of(data: RetrievalSet, queries: list[str], limit: int) -> dict[str, str]:
    wanted = {document for query in queries for document, grade in data.qrels[query].items() if grade > 0}
    order = sorted(data.corpus, key=lambda document: document not in wanted)
    return {document: data.corpus[document] for document in order[: max(limit, len(wanted))]}


def rankings(model: SpectraSentenceTransformer, queries: list[str], documents: list[str]) -> dict[str, Ranking]:
    with autocast(model.device.type, resolve_precision("auto")):
        asked = model.encode_query(queries, outputs=OUTPUTS)
        found = model.encode_document(documents, outputs=OUTPUTS)
    for side in (asked, found):
        side["beside"] = np.hstack([side["semantic"], BESIDE**0.5 * side["entity"]])
    show_similarity(found)
    systems = {name: nearest(asked[name], found[name], DEPTH) for name in (*OUTPUTS[:4], "beside")}
    return systems | {"bm25": BM25System().search(queries, documents, DEPTH)}


def show_similarity(found: dict[str, np.ndarray]) -> None:
    names = ("semantic", "entity", "ranking", "anchor64")
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    print("CKA  ", "  ".join(f"{a}/{b} {linear_cka(found[a], found[b]):.3f}" for a, b in pairs), flush=True)


def show(values: dict[str, np.ndarray], rows: np.ndarray, title: str) -> None:
    print(f"{title}: {rows.sum():,} queries")
    for name, by_query in values.items():
        gap = paired_difference(by_query[rows], values["semantic"][rows])
        low, high = gap.ci
        print(f"  {name:10} {by_query[rows].mean():.3f}  {gap.value:+.3f} ({low:+.3f} to {high:+.3f})", flush=True)


def measure(model: SpectraSentenceTransformer, data: RetrievalSet, limit: int, fit: bool) -> None:
    queries = [query for query in judged_queries(data.qrels) if query in data.queries]
    documents = documents_of(data, queries, limit)
    texts = [data.queries[query] for query in queries]
    print(f"\n{data.name}: {len(queries):,} queries, {len(documents):,} documents", flush=True)
    if fit:
        model.spectra.entity.prior.idf.zero_()
        fit_rarity(model, Dataset.from_dict({"text": list(documents.values())}))
    values = {
        name: ranking_figures(ranking, queries, list(documents), data.qrels)["ndcg@10"]
        for name, ranking in rankings(model, texts, list(documents.values())).items()
    }
    rare = rare_term_slice(texts, documents, [data.qrels[query] for query in queries])
    show(values, rare, "slice")
    if not rare.all():
        show(values, ~rare, "rest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=HUB_NAME)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPECTRA_DATA", "../shared/data")))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--limit", type=int, default=1_500)
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    model = open_model(options.model)
    model.max_seq_length = min(model.max_seq_length or 128, 128)
    fit = options.fit or not bool(model.spectra.entity.prior.idf.any())
    for name in options.only:
        measure(model, collection(name, options.data, options.limit), options.limit, fit)


if __name__ == "__main__":
    main()
