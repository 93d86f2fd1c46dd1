"""Queries per second of sparse search at stated recall, on real sparse vectors, for several engines in one run.

    python benchmarks/sparse_search.py [MODEL] [--documents N] [--queries N] [--rounds 3] [--cache FOLDER] [--json F]

MODEL is a sparse encoder's folder, by default `splade:tiny`. Documents are passages of 40 words, queries real
questions (`sparse_texts.py`), read up to 64 tokens. --cache keeps their vectors for the next run.

Every engine answers the same queries, one after the other from one thread; the engines alternate, and a line shows the
median over the rounds. `CPU q/s` counts the processor time of the process, all threads included, which other work on
the machine disturbs least; `ratio` is CPU q/s relative to the first line in the same round. `recall` is the share of
the exact ten hits among the ten found; of equal scores at the cut, any counts.

    ours, numba          posting lists by memory map, exact
    ours, numpy          the same without numba: the same hits
    ours, float16/uint8  rounded weights
    ours, top=60         pruned documents
    scipy                queries @ documents.T (CSR), and a partial sort
    edge                 qdrant-edge-py, exact
    seismic              pyseismic-lsr, approximate: by its query_cut and heap_factor
    bm25s, numba         BM25 on the words of the same texts, k = 10: another ranking, for its speed
    ours, BM25           the BM25 part of a hybrid index

The last table shows how the time of a query follows the total length of the posting lists of its terms.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import load_npz, save_npz
from scipy.stats import spearmanr
from sparse_texts import benchmark_texts
from texts_once import data_folder

from spectra_nsa.core.files import write_json
from spectra_nsa.core.results import environment
from spectra_nsa.evaluation.bm25 import stemmed_words
from spectra_nsa.evaluation.open import open_system
from spectra_nsa.evaluation.sparse.encoding import encode_rows
from spectra_nsa.index.collection import Index
from spectra_nsa.index.hits import Hits
from spectra_nsa.index.info import index_info
from spectra_nsa.index.records import id_hash
from spectra_nsa.index.sparse.bm25 import BM25Part
from spectra_nsa.index.sparse.index import SparseIndex
from spectra_nsa.index.sparse.pruning import Pruning

K, LENGTH = 10, 64
Search = Callable[[int], Any]  # the number of a query → hits


def vectors(options: argparse.Namespace) -> tuple[list[str], list[str], Any, Any]:
    """Returns passages, questions and their sparse rows."""
    documents, queries = benchmark_texts(options.data, options.documents, options.queries)
    files = [options.cache / f"{side}-{options.documents}-{options.queries}.npz" for side in ("documents", "queries")]
    if not all(file.is_file() for file in files):
        options.cache.mkdir(parents=True, exist_ok=True)
        model: Any = getattr(open_system(options.model), "model", None)
        model.max_seq_length = LENGTH
        for file, texts, role in zip(files, (documents, queries), ("document", "query"), strict=True):
            rows = encode_rows(model, texts, role, name=options.model, precision="auto", progress=True)
            save_npz(file, rows, compressed=False)
    rows, query_rows = (load_npz(file) for file in files)
    return documents, queries, rows, query_rows


def recall(found: list[np.ndarray], scores: np.ndarray, queries: Any, documents: Any) -> float:
    """Returns the share of ten hits whose exact score reaches the tenth exact score."""
    shares = []
    for row, positions in enumerate(found):
        positions = positions[positions >= 0]
        exact = np.asarray((documents[positions] @ queries[row].T).todense()).ravel()
        wanted = int((scores[row] > 0).sum())
        if wanted:
            shares.append(min(1.0, (exact >= scores[row, wanted - 1] * (1 - 1e-5)).sum() / wanted))
    return float(np.mean(shares))


def ours(index: SparseIndex, queries: Any, *, numba: bool = True) -> Search:
    """Returns the search of a sparse index of one segment."""
    (segment,) = index.index.segments
    lists: Any = segment.parts["sparse"]
    return lambda row: lists.search(queries[row], K, segment.dead, numba=numba).positions[0]


def scipy_search(queries: Any, documents: Any) -> Search:
    columns = documents.T.tocsr()

    def search(row: int) -> np.ndarray:
        scores = (queries[row] @ columns).toarray()[0]
        top = np.argpartition(-scores, K)[:K]
        return top[np.argsort(-scores[top])]

    return search


def engines(folder: Path, texts: list[str], questions: list[str], documents: Any, queries: Any) -> Iterator[Any]:
    """Yields name, search, seconds to build, bytes on disk, and whether it ranks by the sparse vectors."""
    ids = [str(number) for number in range(documents.shape[0])]

    def built(name: str, make: Callable[[Path], Any]) -> tuple[Any, float, int]:
        start = time.process_time()
        index = make(folder / name)
        size = sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file())
        return index, time.process_time() - start, size

    exact, *cost = built("float32", lambda path: SparseIndex.build(path, documents, ids))
    yield "ours, numba", ours(exact, queries), *cost, True
    yield "ours, numpy", ours(exact, queries, numba=False), *cost, True
    for form in ("float16", "uint8"):
        index, *cost = built(form, lambda path, f=form: SparseIndex.build(path, documents, ids, impacts=f))
        yield f"ours, {form}", ours(index, queries), *cost, True
    rule = Pruning(by="top", value=60)
    index, *cost = built("top", lambda path: SparseIndex.build(path, documents, ids, pruning=rule))
    yield "ours, top=60", ours(index, queries), *cost, True
    yield "scipy", scipy_search(queries, documents), 0.0, documents.data.nbytes + documents.indices.nbytes, True
    yield from edge_and_seismic(built, documents, ids, queries)
    yield from bm25(built, texts, questions)


def edge_and_seismic(built: Any, documents: Any, ids: list[str], queries: Any) -> Iterator[Any]:
    with contextlib.suppress(ModuleNotFoundError):
        import qdrant_edge  # noqa: F401

        from spectra_nsa.index.backends.edge import EdgeIndex

        edge, *cost = built("edge", lambda path: EdgeIndex.build(path, documents, ids))
        at = {id_hash(key) >> 1: number for number, key in enumerate(ids)}

        def search_edge(row: int) -> np.ndarray:
            return np.array([at.get(number, -1) for number in edge.search(queries[row], K).positions[0].tolist()])

        yield "edge", search_edge, *cost, True
    with contextlib.suppress(ModuleNotFoundError):
        import seismic  # noqa: F401

        from spectra_nsa.index.backends.seismic import SeismicIndex

        approximate, *cost = built("seismic", lambda path: SeismicIndex.build(path, documents, ids))
        for cut, factor in ((5, 0.9), (10, 0.7), (20, 0.5)):

            def search(row: int, cut: int = cut, factor: float = factor) -> np.ndarray:
                approximate.query_cut, approximate.heap_factor = cut, factor
                return approximate.search(queries[row], K).positions[0]

            yield f"seismic {cut}, {factor}", search, *cost, True


def bm25(built: Any, texts: list[str], questions: list[str]) -> Iterator[Any]:
    import bm25s

    words, asked = list(stemmed_words(texts)), list(stemmed_words(questions))
    start = time.process_time()
    lexical = bm25s.BM25(k1=1.5, b=0.75, backend="numba")
    lexical.index(words, show_progress=False)
    seconds = time.process_time() - start
    size = sum(array.nbytes for array in lexical.scores.values() if isinstance(array, np.ndarray))
    known = [[word for word in query if word in lexical.vocab_dict] or words[0][:1] for query in asked]
    lexical.activate_numba_scorer()
    yield "bm25s, numba", lambda row: lexical.retrieve([known[row]], k=K, show_progress=False), seconds, size, False

    def make(path: Path) -> Index:
        index = Index.create(path, "hybrid", {"bm25": BM25Part()})
        index.add([str(number) for number in range(len(words))], {"bm25": words})
        return index

    index, *cost = built("bm25", make)
    part, (segment,) = index.parts["bm25"], index.segments
    opened: Any = segment.parts["bm25"]

    def search(row: int) -> Hits:
        return opened.search(part.prepare([asked[row]], [opened]), K, segment.dead)

    yield "ours, BM25", search, *cost, False


def measured(candidates: list[Any], queries: Any, documents: Any, rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each engine; the engines alternate within each round."""
    exact = candidates[0][1]
    truth = [exact(row) for row in range(queries.shape[0])]
    scores = np.array(
        [np.sort(np.pad(_scores(documents, at, queries[r]), (0, K)))[::-1][:K] for r, at in enumerate(truth)]
    )
    times: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in candidates}
    found = {
        name: [search(row) for row in range(queries.shape[0])] for name, search, *_, sparse in candidates if sparse
    }
    parts = np.array_split(np.arange(queries.shape[0]), rounds)
    for part in parts:
        for name, search, *_ in candidates:
            search(int(part[0]))
            start = time.process_time(), time.perf_counter()
            for row in part:
                search(int(row))
            ends = time.process_time(), time.perf_counter()
            times[name].append((len(part) / (ends[0] - start[0]), len(part) / (ends[1] - start[1])))
    rows = []
    first = [cpu for cpu, _ in times[candidates[0][0]]]
    for name, _, seconds, size, sparse in candidates:
        cpu = [value for value, _ in times[name]]
        rows.append({
            "engine": name, "recall": round(recall(found[name], scores, queries, documents), 4) if sparse else None,
            "cpu_qps": statistics.median(cpu), "wall_qps": statistics.median(value for _, value in times[name]),
            "ratio": statistics.median(a / b for a, b in zip(cpu, first, strict=True)),
            "build_cpu_seconds": seconds, "bytes": size,
        })  # fmt: skip
    return rows


def _scores(documents: Any, positions: np.ndarray, query: Any) -> np.ndarray:
    return np.asarray((documents[positions[positions >= 0]] @ query.T).todense()).ravel()


def latency(search: Search, queries: Any, lengths: np.ndarray) -> dict[str, Any]:
    """Returns how the time of a query follows the postings that it reads: the best of three times, by quarter."""
    postings = np.array([lengths[queries[row].indices].sum() for row in range(queries.shape[0])])
    seconds = np.full(queries.shape[0], np.inf)
    for _ in range(3):
        for row in range(queries.shape[0]):
            start = time.perf_counter()
            search(row)
            seconds[row] = min(seconds[row], time.perf_counter() - start)
    order = np.array_split(np.argsort(postings, kind="stable"), 4)
    quarters = [
        {
            "postings": int(np.median(postings[part])),
            "ms": 1e3 * float(np.median(seconds[part])),
            "p99_ms": 1e3 * float(np.quantile(seconds[part], 0.99)),
        }
        for part in order
    ]
    slope = np.polyfit(postings, seconds, 1)[0]
    correlation = float(spearmanr(postings, seconds).statistic)
    return {"spearman": correlation, "ns_per_posting": 1e9 * float(slope), "quarters": quarters}


def batches(index: SparseIndex, queries: Any) -> dict[str, float]:
    """Returns queries per second of wall time for all queries in one call, by number of threads."""
    found = {}
    before = os.environ.get("OMP_NUM_THREADS")
    for threads in (1, 2):
        os.environ["OMP_NUM_THREADS"] = str(threads)
        start = time.perf_counter()
        index.search(queries, K)
        found[str(threads)] = queries.shape[0] / (time.perf_counter() - start)
    os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
    return found


def show(document: dict[str, Any]) -> None:
    print(f"{'engine':18}{'recall':>8}{'CPU q/s':>10}{'wall q/s':>10}{'ratio':>8}{'build CPU s':>13}{'MB':>8}")
    for row in document["engines"]:
        kept = "" if row["recall"] is None else f"{row['recall']:.4f}"
        print(
            f"{row['engine']:18}{kept:>8}{row['cpu_qps']:>10,.0f}{row['wall_qps']:>10,.0f}{row['ratio']:>8.3f}"
            f"{row['build_cpu_seconds']:>13.1f}{row['bytes'] / 1e6:>8.0f}"
        )
    threads = ", ".join(f"{count} thread(s) {value:,.0f}" for count, value in document["batch_qps"].items())
    print(f"\nall queries in one call, wall q/s: {threads}")
    found = document["latency"]
    print(f"time against postings read: Spearman {found['spearman']:.3f}, {found['ns_per_posting']:.2f} ns per posting")
    for quarter in found["quarters"]:
        print(f"  {quarter['postings']:>9,} postings  median {quarter['ms']:.3f} ms  p99 {quarter['p99_ms']:.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="splade:tiny")
    parser.add_argument("--documents", type=int, default=120_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--cache", type=Path, default=Path("sparse-search-cache"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    texts, questions, documents, queries = vectors(options)
    print(f"{documents.shape[0]:,} documents with {documents.nnz / documents.shape[0]:.1f} active dimensions, "
          f"{queries.shape[0]:,} queries with {queries.nnz / queries.shape[0]:.1f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        candidates = list(engines(folder, texts, questions, documents, queries))
        rows = measured(candidates, queries, documents, options.rounds)
        index = SparseIndex.load(folder / "float32")
        (segment,) = index.index.segments
        lists: Any = segment.parts["sparse"]
        document = {"schema": 1, "model": options.model, "environment": environment(), "engines": rows}
        document["postings"] = index_info(index.index)["parts"]["sparse"]
        document["batch_qps"] = batches(index, queries)
        document["latency"] = latency(ours(index, queries), queries, lists.lengths())
    show(document)
    if options.json:
        write_json(options.json, document)


if __name__ == "__main__":
    main()
