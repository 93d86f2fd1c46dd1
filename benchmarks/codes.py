"""Recall of the true ten nearest among the first C by code: docstrings search functions of the standard library.

    python benchmarks/codes.py [MODEL] [--corpus PAIRS] [--limit N]

MODEL is a saved model or a checkpoint; by default MiniLM. Codes are fitted on the functions and on excerpts of them,
saved, loaded and used as anyone would; no docstring is seen. PAIRS takes another set of pairs instead: anchors are
queries, positives documents. Last, the ten hits of the whole cascade against the ten of exact search.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time

import numpy as np

from spectra_nsa.heads.bridge import WIDTHS
from spectra_nsa.index.cascade import build_cascade, unpack_signs
from spectra_nsa.metrics.hashing import candidate_recall
from spectra_nsa.models.sentence import SpectraSentenceTransformer, load
from spectra_nsa.models.starter import HUB_NAME
from spectra_nsa.models.warm_start import open_model
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.sources import load_source
from spectra_nsa.training.precision import autocast, resolve_precision
from spectra_nsa.workflows.fit import fit_codes_on

Sides = dict[str, np.ndarray]


def encode(model: SpectraSentenceTransformer, documents: list[str], queries: list[str]) -> tuple[Sides, Sides]:
    model.max_seq_length = min(model.max_seq_length or 128, 128)
    with autocast(model.device.type, resolve_precision("auto")):
        found = model.encode_document(documents, outputs=["embedding", "fast"])
        asked = model.encode_query(queries, outputs=["embedding", "fast_logits"])
    for side in (found, asked):
        side["embedding"] /= np.linalg.norm(side["embedding"], axis=1, keepdims=True)
    return found, asked


def show(name: str, found: Sides, asked: Sides) -> None:
    wanted = np.argpartition(-(asked["embedding"] @ found["embedding"].T), 10, axis=1)[:, :10]
    for width in WIDTHS:
        signs, logits = unpack_signs(found["fast"][:, : width // 8]), asked["fast_logits"][:, :width]
        for kind, side in (("Hamming", np.where(logits > 0, 1, -1)), ("float × bits", logits)):
            recall = candidate_recall(wanted, (side.astype(np.float32) @ signs.T))
            print(f"{name:8} {width:>3} bits  {kind:12}", {c: round(v, 3) for c, v in recall.items()}, flush=True)


def show_cascade(found: Sides, asked: Sides) -> None:
    wanted = np.argsort(-(asked["embedding"] @ found["embedding"].T), axis=1)[:, :10]
    for width in WIDTHS:
        built = build_cascade(found["embedding"], found["fast"], bits=width)
        for scoring in ("symmetric", "asymmetric"):
            recalls = {}
            for candidates in (50, 100, 200, 400):
                _, hits = built.search(
                    asked["embedding"], asked["fast_logits"], 10, candidates=candidates, scoring=scoring
                )
                recalls[candidates] = round(float((hits[:, :, None] == wanted[:, None, :]).any(1).mean()), 3)
            print(f"cascade  {width:>3} bits  {scoring:12} {recalls}  {built.bytes_per_document} bytes a document")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=HUB_NAME)
    parser.add_argument("--corpus", default="python:stdlib")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    rows = load_source(options.corpus, limit=options.limit).dataset
    twice = near_duplicates(list(rows["anchor"]), None) | near_duplicates(list(rows["positive"]), None)
    rows = rows.select(np.flatnonzero(~twice))
    documents, queries = list(rows["positive"]), list(rows["anchor"])
    print(f"{len(documents):,} documents", flush=True)
    show("unfitted", *encode(open_model(options.model), documents, queries))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fit_codes_on(options.model, documents, output=folder, say=lambda line: print(f"  {line}", file=sys.stderr))
        print(f"fitted and saved in {time.perf_counter() - began:.0f} s, encoding included", flush=True)
        found, asked = encode(load(folder), documents, queries)
    show("fitted", found, asked)
    show_cascade(found, asked)


if __name__ == "__main__":
    main()
