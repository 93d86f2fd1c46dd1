"""Recall of the true ten nearest neighbors among the best C by code, for several codes of 64, 128 and 256 bits.

    python benchmarks/codes.py [MODEL] [--collections NAME …] [--data FOLDER] [--cache FOLDER] [--json F] [--html F]

MODEL is a saved model or a checkpoint, by default MiniLM. It reads 128 tokens per text, and is saved and loaded again
before the measurement. Collections: `stdlib` (docstring finds function), `medquad` (question finds answer, 6,000
pairs), BEIR folders in FOLDER ($SPECTRA_DATA, otherwise ../shared/data), or any source of pairs. The true neighbors are
those by cosine of the float `embedding`. Queries are real, and no method is fitted on them. Each code is searched in
two ways: by Hamming distance, and by the floats of the query times the bits of the documents.

    fitted          `spectra codes fit` on the documents and excerpts of them
    as shipped      the bits of MODEL without fitting: random for a checkpoint
    hyperplanes     Gaussian directions, no offset
    PCA sign        leading principal directions of the documents, centered
    ITQ             iterative quantization of these (Gong et al. 2013; faiss), fitted for each width
    first signs     binary quantization of sentence-transformers, of the first 64, 128 or 256 dimensions
    all signs       the same for all dimensions, one bit each

Intervals are 95 %, bootstrapped over queries, at C = 100. The last lines show recall of the complete cascade with the
fitted codes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from sentence_transformers.util import quantize_embeddings
from texts_once import Code, Collection, Once, Vectors, collection, data_folder, fitted_codes

from spectra_nsa.core.files import write_json
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import HUB_NAME
from spectra_nsa.heads.bridge import BITS, WIDTHS
from spectra_nsa.index.cascade import build_cascade, unpack_signs
from spectra_nsa.metrics.bootstrap import mean_interval
from spectra_nsa.metrics.hashing import candidate_ranks
from spectra_nsa.report.html import Report

CANDIDATES = (10, 25, 50, 100, 200, 400)
HEADLINE = 100
COLLECTIONS = ("stdlib", "medquad", "cosqa_retrieval_dev", "cranfield")
KINDS = ("Hamming", "float × bits")


def others(asked: np.ndarray, found: np.ndarray) -> Iterator[tuple[str, int, Code]]:
    """Yields (name, bits, code) of the other methods."""
    D = found.shape[1]
    planes = np.random.default_rng(0).standard_normal((D, BITS)).astype(np.float32)
    center = found.mean(0)
    directions = np.linalg.svd(np.cov((found - center).T))[0].astype(np.float32)
    signs = [unpack_signs(quantize_embeddings(side, "ubinary"))[:, :D] for side in (asked, found)]
    for width in WIDTHS:
        yield "hyperplanes", width, (asked @ planes[:, :width], found @ planes[:, :width])
        yield "PCA sign", width, ((asked - center) @ directions[:, :width], (found - center) @ directions[:, :width])
        itq = faiss.ITQTransform(D, width, True)
        itq.max_train_per_dim = len(found)
        itq.train(found)
        yield "ITQ", width, (itq.apply(asked), itq.apply(found))
        yield "first signs", width, (asked[:, :width], signs[1][:, :width])
    yield "all signs", D, (asked, signs[1])


def measured(texts: Collection, once: Once) -> list[dict[str, Any]]:
    """Returns a row for each method, width and kind of scoring."""
    asked, found = once.vectors(texts.queries, query=True), once.vectors(texts.documents)
    near = asked["embedding"] @ found["embedding"].T
    wanted = np.argpartition(-near, 10, axis=1)[:, :10]
    own = {
        "fitted": fitted_codes(once, texts.documents, asked, found),
        "as shipped": (asked["fast_logits"], found["fast_logits"]),
    }
    codes = [(name, b, (code[0][:, :b], code[1][:, :b])) for name, code in own.items() for b in WIDTHS]
    rows = []
    for name, width, (query, document) in [*codes, *others(asked["embedding"], found["embedding"])]:
        signs = np.where(document > 0, 1, -1).astype(np.float32)
        for kind in KINDS:
            side = np.where(query > 0, 1, -1).astype(np.float32) if kind == "Hamming" else query
            ranks = candidate_ranks(wanted, side @ signs.T)
            row: dict[str, Any] = {"method": name, "bits": width, "scoring": kind}
            row["recall"] = {str(c): round(float((ranks < c).mean()), 4) for c in CANDIDATES}
            row["ci"] = [round(end, 4) for end in mean_interval((ranks < HEADLINE).mean(1))]
            rows.append(row)
            show(row)
    show_cascade(own["fitted"], asked, found)
    return rows


def show(row: dict[str, Any]) -> None:
    recall = "".join(f"{value:8.3f}" for value in row["recall"].values())
    low, high = row["ci"]
    print(f"{row['method']:12}{row['bits']:>4} bits  {row['scoring']:13}{recall}   {low:.3f}–{high:.3f}", flush=True)


def show_cascade(code: Code, asked: Vectors, found: Vectors) -> None:
    wanted = np.argsort(-(asked["embedding"] @ found["embedding"].T), axis=1)[:, :10]
    packed = np.packbits(code[1] > 0, axis=1)
    for width in WIDTHS:
        built = build_cascade(found["embedding"], packed, bits=width)
        for scoring in ("symmetric", "asymmetric"):
            recalls = []
            for candidates in CANDIDATES:
                _, hits = built.search(asked["embedding"], code[0], 10, candidates=candidates, scoring=scoring)
                recalls.append((hits[:, :, None] == wanted[:, None, :]).any(1).mean())
            kept = "".join(f"{recall:8.3f}" for recall in recalls)
            kind = KINDS[scoring == "asymmetric"]
            print(f"{'cascade':12}{width:>4} bits  {kind:13}{kept}   {built.bytes_per_document} bytes", flush=True)


def page(document: dict[str, Any]) -> Report:
    """Builds a section for each collection, with a panel for each width and scoring and a line for each method."""
    lead = f"{document['model']}: recall of the true ten nearest neighbors among the best C documents by code."
    report = Report("Recall by codes", lead=lead)
    for one in document["collections"]:
        charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for row in one["rows"]:
            if row["bits"] in WIDTHS:
                lines = charts.setdefault(f"{row['bits']} bits, {row['scoring']}", {})
                lines[row["method"]] = [(float(c), value) for c, value in row["recall"].items()]
        title = f"{one['name']}: {one['queries']:,} queries, {one['documents']:,} documents"
        ordered = {name: charts[name] for name in sorted(charts, key=lambda name: (int(name.split()[0]), name))}
        report.add_lines(ordered, title=title, x_label="candidates kept, C", log_x=True)
        header = ["method", "bits", "scoring", *(f"C = {c}" for c in CANDIDATES), f"95 % at {HEADLINE}"]
        cells = [
            [row["method"], str(row["bits"]), row["scoring"], *(f"{v:.3f}" for v in row["recall"].values()),
             f"{row['ci'][0]:.3f}–{row['ci'][1]:.3f}"]
            for row in one["rows"]
        ]  # fmt: skip
        report.add_grid(header, cells, title=f"{one['name']}, figures")
    return report.add_settings(document["environment"], title="Environment")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=HUB_NAME)
    parser.add_argument("--collections", nargs="+", default=COLLECTIONS, metavar="NAME")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--cache", type=Path, help="cache the vectors in this folder for the next run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path)
    options = parser.parse_args()
    once = Once(options.model, options.cache)
    document: dict[str, Any] = {"schema": 1, "model": options.model, "environment": environment(), "collections": []}
    for name in options.collections:
        start = time.perf_counter()
        texts = collection(name, options.data)
        print(f"\n{name}: {len(texts.queries):,} queries, {len(texts.documents):,} documents", flush=True)
        print(" " * 35 + "".join(f"{c:8}" for c in CANDIDATES) + f"   95 % at {HEADLINE}")
        rows = measured(texts, once)
        sizes = {"queries": len(texts.queries), "documents": len(texts.documents)}
        document["collections"].append({"name": name, **sizes, "rows": rows})
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
    if options.json:
        write_json(options.json, document)
    if options.html:
        page(document).write(options.html)


if __name__ == "__main__":
    main()
