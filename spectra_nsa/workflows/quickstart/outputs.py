"""What each output of the quickstart's model is worth at search, from the vectors that its measurement left.

Legend: Q queries, N documents, D width, B bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.core.memory import release_memory
from spectra_nsa.evaluation.systems import DenseSystem, Ranking, nearest
from spectra_nsa.index.cascade import hamming_nearest, product_nearest
from spectra_nsa.models.encode import encode_role

if TYPE_CHECKING:
    from spectra_nsa.evaluation.pairs import PairsTask

OUTPUTS = ("embedding", "entity", "anchor64", "fast", "fast_logits")
CANDIDATES = 100


class AllOutputs(DenseSystem):
    """A dense system that computes the named outputs in the same pass, and keeps those of what it encoded last."""

    queries: dict[str, np.ndarray]
    documents: dict[str, np.ndarray]

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        self.queries = self._outputs("query", texts)
        return self.queries["embedding"]

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.documents = self._outputs("document", texts)
        return self.documents["embedding"]

    def _outputs(self, role: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
        found = encode_role(
            self.model, texts, role, precision=self.precision, outputs=OUTPUTS, batch_size=self.batch_size
        )
        release_memory()  # a ranking takes a matrix of all cosines next
        return {**found, "embedding": _unit(found["embedding"])}


class _Form:
    """A way to search with vectors that are there already."""

    def __init__(self, name: str, search: Callable[[int], Ranking]) -> None:
        self.name = name
        self._search = search

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        return self._search(k)


def measure_outputs(system: AllOutputs, task: PairsTask, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Searches by each output alone, and by the short code with the vector after it.

    Args:
        system: has just been measured on the task.
        task: what is searched.
        sizes: Matryoshka sizes of `embedding`, the largest first.

    Returns:
        `output` (what was searched by), `bytes` a document, `ndcg@10` and `ci` each.
    """
    from spectra_nsa.evaluation.run import evaluate

    asked, found = system.queries, system.documents
    forms: dict[str, tuple[int, Callable[[int], Ranking]]] = {}
    for size in sizes:
        name = "embedding" if size == sizes[0] else f"embedding, first {size}"
        forms[name] = 4 * size, _by_cosine(asked["embedding"][:, :size], found["embedding"][:, :size])
    for name in ("entity", "anchor64"):
        forms[name] = 4 * found[name].shape[1], _by_cosine(asked[name], found[name])
    for bits in (256, 64):
        logits, codes = asked["fast_logits"][:, :bits], np.ascontiguousarray(found["fast"][:, : bits // 8])
        forms[f"fast, {bits} bits, Hamming"] = bits // 8, _by_code(hamming_nearest, logits, codes)
        forms[f"fast, {bits} bits, float query"] = bits // 8, _by_code(product_nearest, logits, codes)
    width = found["embedding"].shape[1]
    both = f"fast, 64 bits, then embedding for {CANDIDATES}"
    forms[both] = 8 + 4 * width, _reordered(product_nearest(logits, codes, CANDIDATES), asked, found)
    evaluation = evaluate([_Form(name, search) for name, (_, search) in forms.items()], [task], progress=False)
    return [
        {"output": one.system, "bytes": forms[one.system][0], "ndcg@10": one.value, "ci": one.ci}
        for one in evaluation.results
        if one.metric == "ndcg@10"
    ]


def outputs_grid(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table, for people."""
    shown = []
    for row in rows:
        spread = "" if row["ci"] is None else f" ± {(row['ci'][1] - row['ci'][0]) / 2:.3f}"
        shown.append([row["output"], f"{row['bytes']:,}", f"{row['ndcg@10']:.3f}{spread}"])
    return ["searched by", "bytes a document", "nDCG@10"], shown


def _by_cosine(asked_QD: np.ndarray, found_ND: np.ndarray) -> Callable[[int], Ranking]:
    return lambda k: nearest(_unit(asked_QD), _unit(found_ND), k)


def _by_code(
    search: Callable[[np.ndarray, np.ndarray, int], np.ndarray], logits_QB: np.ndarray, codes: np.ndarray
) -> Callable[[int], Ranking]:
    return lambda k: _in_order(search(logits_QB, codes, min(k, len(codes))))


def _reordered(
    found_QC: np.ndarray, asked: dict[str, np.ndarray], found: dict[str, np.ndarray]
) -> Callable[[int], Ranking]:
    def search(k: int) -> Ranking:
        pairs = zip(asked["embedding"], found_QC, strict=True)
        scores_QC = np.stack([found["embedding"][places_C] @ query_D for query_D, places_C in pairs])
        order_QK = np.argsort(-scores_QC, axis=1, kind="stable")[:, :k]
        return _in_order(np.take_along_axis(found_QC, order_QK, 1))

    return search


def _in_order(found_QK: np.ndarray) -> Ranking:
    scores_K = -np.arange(found_QK.shape[1], dtype=np.float32)
    return Ranking(index=found_QK.astype(np.int64), scores=np.broadcast_to(scores_K, found_QK.shape).copy())


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
