"""The search quality of each output of the quickstart's model, from the vectors of its measurement.

Legend: Q queries, N documents, D width, B bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.core.memory import release_memory
from spectra_nsa.evaluation.systems import DenseSystem, Ranking, nearest
from spectra_nsa.index.cascade import hamming_nearest, product_nearest
from spectra_nsa.models.encoding.roles import encode_role

if TYPE_CHECKING:
    from spectra_nsa.evaluation.pairs import PairsTask

OUTPUTS = ("embedding", "entity", "anchor64", "fast", "fast_logits")
CANDIDATES = 100


class AllOutputs(DenseSystem):
    """A dense system that computes all named outputs in one pass and keeps those of the texts encoded last."""

    queries: dict[str, np.ndarray]
    documents: dict[str, np.ndarray]

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        self.queries = self._outputs("query", texts)
        return self.queries["embedding"]

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.documents = self._outputs("document", texts)
        return self.documents["embedding"]

    def _outputs(self, role: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
        arrays = encode_role(
            self.model, texts, role, precision=self.precision, outputs=OUTPUTS, batch_size=self.batch_size
        )
        release_memory()  # the ranking that follows needs memory for a matrix of all cosines
        return {**arrays, "embedding": _unit(arrays["embedding"])}


class _PrecomputedSystem:
    """A system that searches with vectors that are already computed."""

    def __init__(self, name: str, search: Callable[[int], Ranking]) -> None:
        self.name = name
        self._search = search

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        return self._search(k)


def measure_outputs(system: AllOutputs, task: PairsTask, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Measures search by each output alone, and by the short code followed by the full vector.

    Args:
        system: the system, just measured on the task.
        task: the task.
        sizes: the Matryoshka sizes of `embedding`, the largest first.

    Returns:
        for each form of search `output` (its name), `bytes` per document, `ndcg@10` and `ci`.
    """
    from spectra_nsa.evaluation.run import evaluate

    queries, documents = system.queries, system.documents
    forms: dict[str, tuple[int, Callable[[int], Ranking]]] = {}
    for size in sizes:
        name = "embedding" if size == sizes[0] else f"embedding, first {size}"
        forms[name] = 4 * size, _by_cosine(queries["embedding"][:, :size], documents["embedding"][:, :size])
    for name in ("entity", "anchor64"):
        forms[name] = 4 * documents[name].shape[1], _by_cosine(queries[name], documents[name])
    for bits in (256, 64):
        logits = queries["fast_logits"][:, :bits]
        codes = np.ascontiguousarray(documents["fast"][:, : bits // 8])
        forms[f"fast, {bits} bits, Hamming"] = bits // 8, _by_code(hamming_nearest, logits, codes)
        forms[f"fast, {bits} bits, float query"] = bits // 8, _by_code(product_nearest, logits, codes)
    width = documents["embedding"].shape[1]
    two_stages = f"fast, 64 bits, then embedding for {CANDIDATES}"
    forms[two_stages] = 8 + 4 * width, _reordered(product_nearest(logits, codes, CANDIDATES), queries, documents)
    evaluation = evaluate(
        [_PrecomputedSystem(name, search) for name, (_, search) in forms.items()], [task], progress=False
    )
    return [
        {"output": result.system, "bytes": forms[result.system][0], "ndcg@10": result.value, "ci": result.ci}
        for result in evaluation.results
        if result.metric == "ndcg@10"
    ]


def outputs_grid(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of a table of `measure_outputs`."""
    shown = []
    for row in rows:
        spread = "" if row["ci"] is None else f" ± {(row['ci'][1] - row['ci'][0]) / 2:.3f}"
        shown.append([row["output"], f"{row['bytes']:,}", f"{row['ndcg@10']:.3f}{spread}"])
    return ["searched by", "bytes per document", "nDCG@10"], shown


def _by_cosine(queries_QD: np.ndarray, documents_ND: np.ndarray) -> Callable[[int], Ranking]:
    return lambda k: nearest(_unit(queries_QD), _unit(documents_ND), k)


def _by_code(
    search: Callable[[np.ndarray, np.ndarray, int], np.ndarray], logits_QB: np.ndarray, codes: np.ndarray
) -> Callable[[int], Ranking]:
    return lambda k: _by_rank(search(logits_QB, codes, min(k, len(codes))))


def _reordered(
    index_QC: np.ndarray, queries: dict[str, np.ndarray], documents: dict[str, np.ndarray]
) -> Callable[[int], Ranking]:
    def search(k: int) -> Ranking:
        pairs = zip(queries["embedding"], index_QC, strict=True)
        scores_QC = np.stack([documents["embedding"][index_C] @ query_D for query_D, index_C in pairs])
        order_QK = np.argsort(-scores_QC, axis=1, kind="stable")[:, :k]
        return _by_rank(np.take_along_axis(index_QC, order_QK, 1))

    return search


def _by_rank(index_QK: np.ndarray) -> Ranking:
    scores_K = -np.arange(index_QK.shape[1], dtype=np.float32)
    return Ranking(index=index_QK.astype(np.int64), scores=np.broadcast_to(scores_K, index_QK.shape).copy())


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
