"""Quality against bytes per vector, for every form in which the vectors of a model can be stored.

    python benchmarks/matryoshka.py [MODEL] [--tasks NAME …] [--data FOLDER] [--cache FOLDER] [--json F] [--html F]

MODEL is a saved model or a checkpoint, by default MiniLM. It reads 128 tokens per text. Tasks: `stdlib` (docstring
finds function), BEIR folders in FOLDER ($SPECTRA_DATA, otherwise ../shared/data) and any source of pairs by nDCG@10;
`stsb` (dev) by Spearman's ρ; `clinc150` (validation texts, by their ten nearest training texts) by accuracy. Bytes are
those of a stored document. Queries stay floats if the form allows it: with int8, and in "float query". Methods that
need fitting are fitted to the documents.

    float32, int8   the first dimensions of `embedding` (int8 of sentence-transformers, with ranges per dimension)
    binary          their signs on both sides
    fast            the nested codes after `spectra codes fit`; "shipped" without fitting (table only)
    anchor64        its first 16, 32 and all 64 dimensions
    PCA             leading principal components of the `embedding` of the documents, centered, float32
    entity          the entity vector, if the model has learned it

Intervals are 95 %, bootstrapped over queries or pairs; differences are paired. Ties are ordered by row number.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers.util import quantize_embeddings
from texts_once import Once, Vectors, collection, data_folder, fitted_codes

from spectra_nsa.core.files import write_json
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import HUB_NAME
from spectra_nsa.heads.bridge import WIDTHS
from spectra_nsa.metrics.bootstrap import (
    Difference,
    correlation_interval,
    mean_interval,
    paired_correlation_difference,
    paired_difference,
)
from spectra_nsa.metrics.knn import knn_classification
from spectra_nsa.metrics.ranking import ranking_metrics
from spectra_nsa.metrics.similarity import cosine_pairs, spearman
from spectra_nsa.report.html import Report
from spectra_nsa.text.sources import load_source

SIZES = (384, 256, 192, 128, 64, 32, 16)
TASKS = ("stdlib", "cosqa_retrieval_dev", "medline", "cranfield", "stsb", "clinc150")
PAIRED = (
    ("anchor64 64", "float32 64"),
    ("anchor64 64", "PCA 64"),
    ("PCA 64", "float32 64"),
    ("int8 384", "float32 384"),
    ("fast, Hamming 256", "binary 256"),
    ("fast, Hamming 128", "binary 128"),
    ("fast, float query 64", "float32 16"),
)
SHIPPED = "shipped"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """One form of storing vectors: its line in the plot, its dimensions, bytes per document, and both sides."""

    line: str
    size: int
    bytes: float
    asked: np.ndarray
    found: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.line} {self.size}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Texts on both sides, and the score of two arrays of vectors, with one value per unit."""

    metric: str
    queries: list[str]
    documents: list[str]
    score: Callable[[np.ndarray, np.ndarray], np.ndarray]
    gold: np.ndarray | None = None  # if set, units are similarities, and the figure is their rank correlation with it


def task_of(name: str, data: Path) -> Task:
    if name == "stsb":
        rows = load_source(str(data / "stsb" / "dev.jsonl.gz")).dataset
        sides = {"queries": list(rows["sentence1"]), "documents": list(rows["sentence2"])}
        return Task(metric="Spearman", score=cosine_pairs, gold=np.array(rows["score"]), **sides)
    if name == "clinc150":
        train, val = (load_source(str(data / name / f"{part}.jsonl.gz")).dataset for part in ("train", "val"))

        def right(asked: np.ndarray, found: np.ndarray) -> np.ndarray:
            return knn_classification(found, list(train["label"]), asked, list(val["label"])).correct

        return Task(metric="accuracy", queries=list(val["text"]), documents=list(train["text"]), score=right)
    texts = collection(name, data)
    qrels = {str(q): {str(d): grade for d, grade in grades.items()} for q, grades in enumerate(texts.relevant)}

    def ndcg(asked: np.ndarray, found: np.ndarray) -> np.ndarray:
        first = np.argsort(-(asked @ found.T), axis=1, kind="stable")[:, :10]
        run = {str(q): {str(d): 10.0 - rank for rank, d in enumerate(row)} for q, row in enumerate(first)}
        return ranking_metrics(run, qrels, ["ndcg@10"])["ndcg@10"]

    return Task(metric="nDCG@10", queries=texts.queries, documents=texts.documents, score=ndcg)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def signs(vectors: np.ndarray) -> np.ndarray:
    return np.where(vectors > 0, 1, -1).astype(np.float32)


def int8(vectors: np.ndarray) -> np.ndarray:
    """Returns the vectors after quantization to int8 by sentence-transformers, with ranges per dimension."""
    low, high = vectors.min(0), vectors.max(0)
    steps = quantize_embeddings(vectors, "int8", ranges=np.stack([low, high])).astype(np.float32)
    return low + (steps + 128.5) * (high - low) / 255


def forms(once: Once, documents: list[str], asked: Vectors, found: Vectors) -> Iterator[Form]:
    query, document = asked["embedding"], found["embedding"]
    for size in (size for size in SIZES if size <= document.shape[1]):
        q, d = unit(query[:, :size]), unit(document[:, :size])
        yield Form(line="float32", size=size, bytes=4 * size, asked=q, found=d)
        yield Form(line="int8", size=size, bytes=size, asked=q, found=unit(int8(d)))
        yield Form(line="binary", size=size, bytes=size / 8, asked=signs(q), found=signs(d))
    shipped = asked["fast_logits"], found["fast_logits"]
    for more, (q, d) in (("", fitted_codes(once, documents, asked, found)), (f", {SHIPPED}", shipped)):
        for size in reversed(WIDTHS):
            bits = signs(d[:, :size])
            yield Form(line=f"fast, Hamming{more}", size=size, bytes=size / 8, asked=signs(q[:, :size]), found=bits)
            yield Form(line=f"fast, float query{more}", size=size, bytes=size / 8, asked=q[:, :size], found=bits)
    center = document.mean(0)
    directions = np.linalg.svd(np.cov((document - center).T))[0].astype(np.float32)
    for size in (64, 32, 16):
        q, d = asked["anchor64"][:, :size], found["anchor64"][:, :size]
        yield Form(line="anchor64", size=size, bytes=4 * size, asked=unit(q), found=unit(d))
        q, d = ((side - center) @ directions[:, :size] for side in (query, document))
        yield Form(line="PCA", size=size, bytes=4 * size, asked=unit(q), found=unit(d))
    if "entity" in found:
        width = found["entity"].shape[1]
        yield Form(line="entity", size=width, bytes=4 * width, asked=asked["entity"], found=found["entity"])


def measured(name: str, task: Task, once: Once) -> dict[str, Any]:
    """Measures all forms in one task, and their paired differences."""
    asked, found = once.vectors(task.queries, query=True), once.vectors(task.documents, query=name in WITHOUT_SIDES)
    units: dict[str, np.ndarray] = {}
    rows = []
    print(f"\n{name}: {task.metric}, {len(task.queries):,} queries, {len(task.documents):,} documents", flush=True)
    for form in forms(once, task.documents, asked, found):
        values = units[form.name] = task.score(form.asked, form.found)
        gold = task.gold
        value = float(values.mean()) if gold is None else spearman(values, gold)
        low, high = mean_interval(values) if gold is None else correlation_interval(values, gold, resamples=500)
        row = {"form": form.line, "size": form.size, "bytes": form.bytes, "value": round(value, 4)}
        rows.append(row | {"ci": [round(low, 4), round(high, 4)]})
        print(f"{form.line:27}{form.size:>4}{form.bytes:>7g} bytes  {value:.3f}  {low:.3f}–{high:.3f}", flush=True)
    gaps = []
    for a, b in PAIRED:
        if a in units and b in units:
            gap = _gap(units[a], units[b], task.gold)
            gaps.append({"a": a, "b": b, "value": round(gap.value, 4), "ci": [round(end, 4) for end in gap.ci]})
            print(f"{a} − {b}: {gap.value:+.3f} ({gap.ci[0]:+.3f} to {gap.ci[1]:+.3f})", flush=True)
    return {"name": name, "metric": task.metric, "queries": len(task.queries), "rows": rows, "differences": gaps}


WITHOUT_SIDES = ("stsb", "clinc150")  # neither side is a document, so both are encoded as queries


def _gap(a: np.ndarray, b: np.ndarray, gold: np.ndarray | None) -> Difference:
    return paired_difference(a, b) if gold is None else paired_correlation_difference(a, b, gold, resamples=500)


def page(document: dict[str, Any]) -> Report:
    """Builds a page with a plot for each task, all figures, and the paired differences."""
    lead = f"{document['model']}: quality by the bytes of a stored vector."
    report = Report("Quality by bytes per vector", lead=lead)
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for one in document["tasks"]:
        lines = charts.setdefault(f"{one['name']}, {one['metric']}", {})
        for row in sorted(one["rows"], key=lambda row: row["bytes"]):
            if SHIPPED not in row["form"]:
                lines.setdefault(row["form"], []).append((row["bytes"], row["value"]))
        charts[f"{one['name']}, {one['metric']}"] = {key: lines[key] for key in sorted(lines)}
    for name, lines in charts.items():
        report.add_lines({"": lines}, title=name, x_label="bytes per vector", log_x=True, single_points=True)
    for one in document["tasks"]:
        rows = [
            [row["form"], str(row["size"]), f"{row['bytes']:g}", f"{row['value']:.3f}", _interval(row["ci"], ".3f")]
            for row in one["rows"]
        ]
        report.add_grid(["form", "numbers", "bytes", one["metric"], "95 %"], rows, title=f"{one['name']}, figures")
        gaps = [
            [f"{gap['a']} − {gap['b']}", f"{gap['value']:+.3f}", _interval(gap["ci"], "+.3f")]
            for gap in one["differences"]
        ]
        report.add_grid(["paired difference", one["metric"], "95 %"], gaps, title=f"{one['name']}, differences")
    return report.add_settings(document["environment"], title="Environment")


def _interval(ci: list[float], form: str) -> str:
    return f"{ci[0]:{form}} to {ci[1]:{form}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=HUB_NAME)
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="NAME")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--cache", type=Path, help="cache the vectors in this folder for the next run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path)
    options = parser.parse_args()
    once = Once(options.model, options.cache)
    tasks = [measured(name, task_of(name, options.data), once) for name in options.tasks]
    document = {"schema": 1, "model": options.model, "environment": environment(), "tasks": tasks}
    if options.json:
        write_json(options.json, document)
    if options.html:
        page(document).write(options.html)


if __name__ == "__main__":
    main()
