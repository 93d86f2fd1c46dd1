"""A dense export against its model: the same texts, every output, alone and in a batch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.metrics.known_item import known_item_ndcg
from spectra_nsa.runtime import Runtime
from spectra_nsa.workflows.export.shapes import MOST, batches, cosines

ALONE = 40  # texts that are encoded together and one by one
SAME = 0.99999  # cosine of a vector to that of the same text alone, from which a format is called invariant
_UNITS = ("embedding", "semantic", "entity", "ranking", "fast_logits")  # compared by cosine
_EXACT = ("fast", "is_ood")  # compared by equality, bits one by one


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the model computes for the texts of a check.

    Attributes:
        texts: queries before documents.
        queries: how many are queries; each has the document of the same number.
        values: outputs by name, in their order.
        seconds: CPU seconds of `embedding` alone.
    """

    texts: list[str]
    queries: int
    values: Mapping[str, NDArray[Any]]
    seconds: float


def reference_of(model: Any, pairs: Sequence[tuple[str, str]], outputs: Sequence[str]) -> Reference:
    """Encodes pairs with the model, in fp32 and without prompts."""
    texts = [query for query, _ in pairs] + [document for _, document in pairs]
    values = model.encode(texts, outputs=list(outputs), prompt="", precision="fp32")
    begin = time.process_time()
    model.encode(texts, prompt="", precision="fp32")
    return Reference(texts=texts, queries=len(pairs), values=values, seconds=time.process_time() - begin)


def compare(runtime: Runtime, reference: Reference, dim: int | None) -> dict[str, Any]:
    """Measures how far an export's outputs are from the model's.

    Args:
        runtime: the export.
        reference: of the model, all dimensions.
        dim: the dimensions that the export keeps; ``None`` for all.

    Returns:
        ``texts``; ``outputs``: by name ``cosine_mean`` and ``cosine_min`` of vectors, ``equal`` (a share) of bits, and
        ``largest_difference`` of all others; ``ndcg@10`` of the pairs with the model and with the export; ``alone``:
        ``cosine_min`` and ``largest_difference`` of texts in a batch to the same texts alone; ``seconds`` and
        ``model_seconds``, CPU time of `embedding`.
    """
    names = list(reference.values)
    found = runtime.encode(reference.texts, outputs=names, prompt="")
    expected = {name: _cut(name, value, dim) for name, value in reference.values.items()}
    begin = time.process_time()
    runtime.encode(reference.texts, prompt="")
    seconds = time.process_time() - begin
    return {
        "texts": len(reference.texts),
        "outputs": {name: _difference(name, found[name], expected[name]) for name in names},
        "ndcg@10": {
            "pairs": reference.queries,
            "model": _ndcg(expected["embedding"], reference.queries),
            "export": _ndcg(found["embedding"], reference.queries),
        },
        "alone": _alone(runtime, reference.texts[:: max(1, len(reference.texts) // ALONE)][:ALONE]),
        "seconds": round(seconds, 3),
        "model_seconds": round(reference.seconds, 3),
    }


def _cut(name: str, value: NDArray[Any], dim: int | None) -> NDArray[Any]:
    if dim is None or name not in ("embedding", "semantic"):
        return value
    value = value[:, :dim]
    return value / np.linalg.norm(value, axis=1, keepdims=True).clip(1e-12)


def _difference(name: str, found: NDArray[Any], expected: NDArray[Any]) -> dict[str, float]:
    if name in _UNITS:
        agreement = cosines(found, expected)
        return {"cosine_mean": rounded(agreement.mean()), "cosine_min": rounded(agreement.min())}
    if name in _EXACT:
        bits = np.unpackbits(found ^ expected, axis=1) if name == "fast" else found != expected
        return {"equal": rounded(1 - bits.mean())}
    return {"largest_difference": rounded(np.abs(found.astype(np.float64) - expected).max())}


def _alone(runtime: Runtime, texts: Sequence[str]) -> dict[str, float]:
    """Compares texts in batches, short beside long ones, with the same texts one by one."""
    rows = runtime.ids(texts)

    def encoded(groups: list[list[list[int]]]) -> NDArray[Any]:
        outputs = [runtime.engine.run(*runtime.ids.padded(group), ["embedding"]) for group in groups]
        return np.concatenate([output["embedding"] for output in outputs])

    together = encoded(batches(rows, 4 * MOST, runtime.facts.length))
    single = encoded([[row] for row in rows])
    agreement = cosines(together, single)
    return {
        "cosine_min": rounded(agreement.min()),
        "largest_difference": rounded(np.abs(together.astype(np.float64) - single).max()),
    }


def _ndcg(vectors_TD: NDArray[Any], queries: int) -> float:
    scores = vectors_TD[:queries].astype(np.float32) @ vectors_TD[queries:].astype(np.float32).T
    return round(float(known_item_ndcg(scores, np.arange(queries)).mean()), 4)


def rounded(value: Any) -> float:
    """Returns a number with 7 digits, 0 for those next to it."""
    return float(f"{float(value):.7g}") if abs(float(value)) >= 1e-9 else 0.0
