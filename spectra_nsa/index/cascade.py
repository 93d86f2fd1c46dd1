"""Search in stages: short codes propose, the bytes they leave over decide (docs/model.md, section 5).

A document is its code b (8, 16 or 32 bytes) and the residual r = z − D b, what a linear decoder of the code leaves over
of its vector, at one byte a number. Stage one proposes C documents by code: by Hamming distance, or by the product of
a float query with the bits. Stage two scores those by q · (D b + r), the cosine up to the rounding of r. Where the
vectors themselves are at hand, on disk for instance, stage three scores the best few exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from spectra_nsa.core.errors import UsageError

Scoring = Literal["symmetric", "asymmetric"]
BLOCK = 65_536  # documents whose bits are unpacked at a time
FINALISTS = 4  # times k: what stage three scores


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """A corpus that is searched by code first.

    Attributes:
        codes: (N, bits / 8) uint8, most significant bit first.
        decoder: (bits, D), from bits of ±1 to the vector.
        residuals: (N, D) int8, in steps of `step`.
        step: of a residual.
        vectors: (N, D), such as a memory map, for stage three; ``None`` ends with stage two.
    """

    codes: np.ndarray
    decoder: np.ndarray
    residuals: np.ndarray
    step: float
    vectors: np.ndarray | None = None

    @property
    def bytes_per_document(self) -> int:
        """What a document takes in memory, `vectors` not counted."""
        return int(self.codes.shape[1] + self.residuals.shape[1])

    def search(
        self,
        query_QD: np.ndarray,
        logits_QB: np.ndarray,
        k: int = 10,
        *,
        candidates: int = 100,
        scoring: Scoring = "asymmetric",
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of the proposed documents.

        Args:
            query_QD: unit vectors.
            logits_QB: the model's `fast_logits`, at least as many as the code has bits.
            k: hits a query.
            candidates: documents that stage one proposes; at least k.
            scoring: of stage one: ``"symmetric"`` compares bits with bits, ``"asymmetric"`` floats with bits.

        Returns:
            scores and indices, (Q, k), best first; fewer columns where there are fewer documents.
        """
        bits = 8 * self.codes.shape[1]
        depth = min(max(candidates, k), len(self.codes))
        propose = hamming_nearest if scoring == "symmetric" else product_nearest
        found_QC = propose(logits_QB[:, :bits], self.codes, depth)
        seen_QB = query_QD @ self.decoder.T
        scores_QC = np.empty(found_QC.shape, dtype=np.float32)
        for query, found_C in enumerate(found_QC):
            scores_QC[query] = unpack_signs(self.codes[found_C]) @ seen_QB[query]
            scores_QC[query] += self.step * (self.residuals[found_C].astype(np.float32) @ query_QD[query])
        if self.vectors is not None:
            found_QC, scores_QC = _best(found_QC, scores_QC, FINALISTS * k)
            pairs = zip(found_QC, query_QD, strict=True)
            scores_QC = np.stack([self.vectors[found_C] @ query_D for found_C, query_D in pairs])
        found_QK, scores_QK = _best(found_QC, scores_QC, k)
        return scores_QK, found_QK


def _best(found_QC: np.ndarray, scores_QC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order_QK = np.argsort(-scores_QC, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found_QC, order_QK, 1), np.take_along_axis(scores_QC, order_QK, 1)


def build_cascade(vectors_ND: np.ndarray, codes_NB: np.ndarray, *, bits: int = 64) -> Cascade:
    """Keeps the first `bits` of each code, and what the best linear decoder of them leaves over.

    Args:
        vectors_ND: unit vectors.
        codes_NB: packed codes, the model's `fast`.
        bits: 64, 128 or 256.

    Raises:
        UsageError: the codes are shorter than that, or `bits` is no multiple of 8.
    """
    if bits <= 0 or bits % 8 or bits > 8 * codes_NB.shape[1]:
        raise UsageError(f"codes of {8 * codes_NB.shape[1]} bits cannot be cut to {bits}: take 64, 128 or 256.")
    codes = np.ascontiguousarray(codes_NB[:, : bits // 8])
    gram, product = np.zeros((bits, bits)), np.zeros((bits, vectors_ND.shape[1]))
    for start in range(0, len(codes), BLOCK):
        signs = unpack_signs(codes[start : start + BLOCK])
        gram += signs.T @ signs
        product += signs.T @ vectors_ND[start : start + BLOCK]
    ridge = 0.01 * len(codes) * np.eye(bits)  # as the model's own decoder has it
    decoder = np.linalg.solve(gram + ridge, product).astype(np.float32)
    residuals = np.empty(vectors_ND.shape, dtype=np.int8)
    widest = 1e-12
    for start in range(0, len(codes), BLOCK):
        part = slice(start, start + BLOCK)
        widest = max(widest, float(np.abs(vectors_ND[part] - unpack_signs(codes[part]) @ decoder).max()))
    step = widest / 127
    for start in range(0, len(codes), BLOCK):
        part = slice(start, start + BLOCK)
        residuals[part] = np.rint((vectors_ND[part] - unpack_signs(codes[part]) @ decoder) / step)
    return Cascade(codes=codes, decoder=decoder, residuals=residuals, step=step)


def hamming_nearest(logits_QB: np.ndarray, codes_NB: np.ndarray, depth: int) -> np.ndarray:
    """The documents whose bits differ least from the query's, nearest first: (Q, depth), by faiss."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise UsageError('Hamming search needs faiss: pip install "spectra-nsa[search]".') from error

    index = faiss.IndexBinaryFlat(8 * codes_NB.shape[1])
    index.add(codes_NB)
    return index.search(np.packbits(logits_QB > 0, axis=1), depth)[1]


def product_nearest(logits_QB: np.ndarray, codes_NB: np.ndarray, depth: int) -> np.ndarray:
    """The documents with the largest product of the query's floats and their bits of ±1, best first: (Q, depth)."""
    best_QC = np.empty((len(logits_QB), 0), dtype=np.float32)
    found_QC = np.empty((len(logits_QB), 0), dtype=np.int64)
    for start in range(0, len(codes_NB), BLOCK):
        scores_QN = logits_QB @ unpack_signs(codes_NB[start : start + BLOCK]).T
        best_QC = np.concatenate([best_QC, scores_QN], axis=1)
        places_QN = np.broadcast_to(np.arange(start, start + scores_QN.shape[1]), scores_QN.shape)
        found_QC = np.concatenate([found_QC, places_QN], axis=1)
        kept_QC = np.argsort(-best_QC, axis=1, kind="stable")[:, :depth]
        best_QC = np.take_along_axis(best_QC, kept_QC, 1)
        found_QC = np.take_along_axis(found_QC, kept_QC, 1)
    return found_QC


def unpack_signs(codes: np.ndarray) -> np.ndarray:
    """Packed bytes (…, B / 8) to float32 of ±1, (…, B)."""
    return np.unpackbits(codes, axis=-1).astype(np.float32) * 2 - 1
