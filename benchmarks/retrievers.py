"""Five ways to search the same four collections: BM25, dense, sparse, inference-free and hybrid, by quality and cost.

    python benchmarks/retrievers.py SPARSE FREE [--dense MODEL] [--json FILE]

SPARSE is a SPLADE model's folder, FREE an inference-free one's, the dense model MiniLM by default. The collections are
the standard library (3,971 questions), CoSQA dev, Cranfield and Medline; those that are not there are left out. Each is
built as an index folder and searched as `spectra search` does.

    ndcg@10        of all questions, with the half width of its 95 % interval
    bytes/doc      postings, words or vectors on disk, without the texts
    query ms       CPU time of a query from text to ten hits, one at a time, median over 200
    build s        CPU time of encoding the documents and writing their part

`hybrid` is dense + sparse, with weights fitted once, on docstrings and functions of packages that no model was trained
on (`dev_packages.py`), and used everywhere. `hybrid, no inference` is inference-free + BM25, fitted in the same way.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dev_packages import split_packages
from rich.console import Console
from rich.table import Table

from spectra_nsa.core.files import write_json
from spectra_nsa.core.results import environment
from spectra_nsa.core.starter import starter_checkpoint
from spectra_nsa.evaluation.pairs import PairsTask
from spectra_nsa.evaluation.retrieval import RetrievalTask
from spectra_nsa.evaluation.systems import Ranking
from spectra_nsa.index.hybrid import Fusion
from spectra_nsa.text.beir import load_beir
from spectra_nsa.workflows.quickstart.data import load_pairs
from spectra_nsa.workflows.searcher import Documents, Searcher

DATA = Path(os.environ.get("SPECTRA_DATA", "../shared/data"))
FOLDERS = {"CoSQA dev": "cosqa_retrieval_dev", "Cranfield": "cranfield", "Medline": "medline"}
TIMED = 200
FILES = {"dense": "vectors.npy"}  # of a part, if they are not named like it
WAYS = {  # the index, and the weight of each of its parts; None for the fitted fusion
    "bm25": ("full", {"bm25": 1.0}),
    "dense": ("full", {"dense": 1.0}),
    "sparse": ("full", {"sparse": 1.0}),
    "inference-free": ("free", {"sparse": 1.0}),
    "hybrid": ("full", None),
    "hybrid, no inference": ("free", None),
}


class Indexes:
    """The two indexes of a collection as systems: SPLADE, dense and BM25; inference-free and BM25."""

    def __init__(self, folder: Path, models: Mapping[str, Sequence[str]]) -> None:
        self.folder, self.models = folder, models
        self.searchers: dict[str, Searcher] = {}

    def build(self, documents: Sequence[str]) -> None:
        """Builds both; a document's id is its position."""
        held = Documents(ids=[str(at) for at in range(len(documents))], texts=list(documents))
        for name, models in self.models.items():
            self.searchers[name] = Searcher.build(self.folder / name, held, models, kind="hybrid")

    def size(self, name: str, parts: Sequence[str]) -> float:
        """Returns the bytes per document of some parts."""
        files = self.searchers[name].index.commit.files
        names = [FILES.get(part, part) for part in parts]
        total = sum(int(file["size"]) for path, file in files.items() if any(name in path for name in names))
        return total / self.searchers[name].index.commit.documents


class Way:
    """One way to search an index, as a system."""

    def __init__(self, name: str, indexes: Indexes, fusions: Mapping[str, Fusion]) -> None:
        self.name, self.indexes = name, indexes
        self.index, weights = WAYS[name]
        self.fusion = fusions[self.index] if weights is None else Fusion(method="weighted", weights=weights)

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        searcher = self.indexes.searchers[self.index]
        searcher.fusion = self.fusion
        hits = searcher.search(queries, k)
        return Ranking(index=hits.positions, scores=hits.scores)

    def milliseconds(self, queries: Sequence[str]) -> float:
        """Returns the median CPU time of a query."""
        times = []
        self.search(queries[:5], [], 10)
        for query in queries[:TIMED]:
            start = time.process_time()
            self.search([query], [], 10)
            times.append(1000 * (time.process_time() - start))
        return statistics.median(times)

    def bytes_per_document(self) -> float:
        parts = [name for name, weight in self.fusion.weights.items() if weight]
        return self.indexes.size(self.index, parts or list(self.indexes.searchers[self.index].index.parts))


def collections() -> Iterator[tuple[str, Any]]:
    """Yields the name and task of each collection."""
    test = load_pairs().test
    yield "standard library", PairsTask("standard library", list(test["anchor"]), list(test["positive"]))
    for name, folder in FOLDERS.items():
        if (DATA / folder).is_dir():
            yield name, RetrievalTask(load_beir(DATA / folder, None))


def fit(indexes: Indexes) -> dict[str, Fusion]:
    """Fits the fusion of both indexes on held-out packages."""
    _, dev = split_packages(1)
    indexes.build(list(dev["positive"]))
    relevant = [{str(at): 1.0} for at in range(len(dev))]
    return {name: searcher.fit(list(dev["anchor"]), relevant) for name, searcher in indexes.searchers.items()}


class _Texts:
    """A system that keeps the texts of a task and finds nothing."""

    name = "texts"

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        self.queries, self.documents = list(queries), list(documents)
        raise StopIteration


def texts_of(task: Any) -> tuple[list[str], list[str]]:
    """Returns the questions and the documents of a task."""
    texts = _Texts()
    with contextlib.suppress(StopIteration):
        task.run(texts)
    return texts.queries, texts.documents


def measure(name: str, task: Any, indexes: Indexes, fusions: Mapping[str, Fusion]) -> Iterator[dict[str, Any]]:
    """Yields a row for each way to search a collection."""
    queries, documents = texts_of(task)
    indexes.build(documents)
    for way in (Way(one, indexes, fusions) for one in WAYS):
        result = next(r for r in task.run(way).results if r.metric == "ndcg@10")
        low, high = result.ci or (result.value, result.value)
        yield {
            "collection": name,
            "documents": len(documents),
            "queries": len(queries),
            "system": way.name,
            "ndcg@10": round(result.value, 4),
            "half_width": round((high - low) / 2, 4),
            "bytes_per_document": round(way.bytes_per_document()),
            "query_ms": round(way.milliseconds(queries), 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sparse")
    parser.add_argument("free")
    parser.add_argument("--dense", default=str(starter_checkpoint()[0]))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    models = {"full": [options.sparse, options.dense], "free": [options.free]}
    console, rows = Console(width=110), []
    with tempfile.TemporaryDirectory() as folder:
        indexes = Indexes(Path(folder), models)
        fusions = fit(indexes)
        for name, fusion in fusions.items():
            console.print(f"fusion of {name}: {fusion.method} {dict(fusion.weights)}")
        for name, task in collections():
            table = Table("system", "ndcg@10", "bytes/doc", "query ms", title=name, title_justify="left")
            for row in measure(name, task, indexes, fusions):
                rows.append(row)
                figure = f"{row['ndcg@10']:.3f} ±{row['half_width']:.3f}"
                table.add_row(row["system"], figure, f"{row['bytes_per_document']:,}", f"{row['query_ms']:.2f}")
            console.print(table)
    if options.json:
        write_json(options.json, {"environment": environment(), "rows": rows, "models": models})


if __name__ == "__main__":
    main()
