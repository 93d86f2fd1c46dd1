"""Search in stages: short codes propose candidates, one-byte residuals rank them (docs/model.md, section 5).

A document is its code b (8, 16 or 32 bytes) and the residual r = z − D b: the part of its vector z that a linear
decoder D of the code does not explain, at one byte per number. Stage one proposes C documents by code: by Hamming
distance, or by the product of a float query with the bits. Stage two scores those by q · (D b + r), the cosine up to
the rounding of r. If the vectors are available, on disk for example, stage three scores the best few exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from spectra_nsa.core.errors import UsageError

Scoring = Literal["symmetric", "asymmetric"]
BLOCK = 65_536  # documents whose bits are unpacked at a time
FINALISTS = 4  # stage three scores this many times k documents


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """A corpus that is searched by code first.

    Attributes:
        codes: (N, bits / 8) uint8, most significant bit first.
        decoder: (bits, D), from bits of ±1 to the vector.
        residuals: (N, D) int8, in units of `step`.
        step: the quantization step of the residuals.
        vectors: (N, D), a memory map for example, for stage three; ``None`` ends with stage two.
    """

    codes: np.ndarray
    decoder: np.ndarray
    residuals: np.ndarray
    step: float
    vectors: np.ndarray | None = None

    @property
    def bytes_per_document(self) -> int:
        """The memory of one document in bytes, without `vectors`."""
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
        """Returns the k nearest of the proposed documents.

        Args:
            query_QD: unit vectors.
            logits_QB: the model's `fast_logits`, at least as many as the code has bits.
            k: hits per query.
            candidates: documents that stage one proposes; at least k.
            scoring: how stage one compares: ``"symmetric"`` bits with bits, ``"asymmetric"`` floats with bits.

        Returns:
            scores and indices, (Q, k), best first; fewer columns if there are fewer documents.
        """
        bits = 8 * self.codes.shape[1]
        depth = min(max(candidates, k), len(self.codes))
        propose = hamming_nearest if scoring == "symmetric" else product_nearest
        index_QC = propose(logits_QB[:, :bits], self.codes, depth)
        decoded_QB = query_QD @ self.decoder.T  # q · D b = (q Dᵀ) · b
        scores_QC = np.empty(index_QC.shape, dtype=np.float32)
        for query, index_C in enumerate(index_QC):
            scores_QC[query] = unpack_signs(self.codes[index_C]) @ decoded_QB[query]
            scores_QC[query] += self.step * (self.residuals[index_C].astype(np.float32) @ query_QD[query])
        if self.vectors is not None:
            index_QC, scores_QC = _best(index_QC, scores_QC, FINALISTS * k)
            pairs = zip(index_QC, query_QD, strict=True)
            scores_QC = np.stack([self.vectors[index_C] @ query_D for index_C, query_D in pairs])
        index_QK, scores_QK = _best(index_QC, scores_QC, k)
        return scores_QK, index_QK


def _best(index_QC: np.ndarray, scores_QC: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order_QK = np.argsort(-scores_QC, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index_QC, order_QK, 1), np.take_along_axis(scores_QC, order_QK, 1)


def check_bits(bits: int, available: int = 256) -> None:
    """Checks that codes can be cut to a number of bits.

    Raises:
        UsageError: they have fewer bits, or it is not a multiple of 8.
    """
    if bits <= 0 or bits % 8 or bits > available:
        raise UsageError(f"cannot cut codes of {available} bits to {bits}: use 64, 128 or 256.")


def build_cascade(vectors_ND: np.ndarray, codes_NB: np.ndarray, *, bits: int = 64) -> Cascade:
    """Builds a cascade from the first `bits` of each code: fits the best linear decoder and stores its residuals.

    Args:
        vectors_ND: unit vectors.
        codes_NB: packed codes, the model's `fast`.
        bits: 64, 128 or 256.

    Raises:
        UsageError: the codes have fewer bits, or `bits` is not a multiple of 8.
    """
    check_bits(bits, 8 * codes_NB.shape[1])
    codes = np.ascontiguousarray(codes_NB[:, : bits // 8])
    gram, product = np.zeros((bits, bits)), np.zeros((bits, vectors_ND.shape[1]))
    for start in range(0, len(codes), BLOCK):
        signs = unpack_signs(codes[start : start + BLOCK])
        gram += signs.T @ signs
        product += signs.T @ vectors_ND[start : start + BLOCK]
    ridge = 0.01 * len(codes) * np.eye(bits)  # the same as for the model's own decoder
    decoder = np.linalg.solve(gram + ridge, product).astype(np.float32)
    residuals = np.empty(vectors_ND.shape, dtype=np.int8)
    largest = 1e-12
    for start in range(0, len(codes), BLOCK):
        part = slice(start, start + BLOCK)
        largest = max(largest, float(np.abs(vectors_ND[part] - unpack_signs(codes[part]) @ decoder).max()))
    step = largest / 127
    for start in range(0, len(codes), BLOCK):
        part = slice(start, start + BLOCK)
        residuals[part] = np.rint((vectors_ND[part] - unpack_signs(codes[part]) @ decoder) / step)
    return Cascade(codes=codes, decoder=decoder, residuals=residuals, step=step)


def hamming_nearest(logits_QB: np.ndarray, codes_NB: np.ndarray, depth: int) -> np.ndarray:
    """Returns the documents whose bits differ least from the query's, nearest first: (Q, depth), by faiss.

    Raises:
        UsageError: faiss is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise UsageError('Hamming search needs faiss: pip install "spectra-nsa[search]".') from error

    index = faiss.IndexBinaryFlat(8 * codes_NB.shape[1])
    index.add(codes_NB)
    return index.search(np.packbits(logits_QB > 0, axis=1), depth)[1]


def product_nearest(logits_QB: np.ndarray, codes_NB: np.ndarray, depth: int) -> np.ndarray:
    """Returns the documents whose ±1 bits have the largest product with the query's floats, best first: (Q, depth)."""
    scores_QC = np.empty((len(logits_QB), 0), dtype=np.float32)
    index_QC = np.empty((len(logits_QB), 0), dtype=np.int64)
    for start in range(0, len(codes_NB), BLOCK):
        block_QN = logits_QB @ unpack_signs(codes_NB[start : start + BLOCK]).T
        scores_QC = np.concatenate([scores_QC, block_QN], axis=1)
        rows_QN = np.broadcast_to(np.arange(start, start + block_QN.shape[1]), block_QN.shape)
        index_QC, scores_QC = _best(np.concatenate([index_QC, rows_QN], axis=1), scores_QC, depth)
    return index_QC


def unpack_signs(codes: np.ndarray) -> np.ndarray:
    """Unpacks bytes (…, B / 8) to float32 of ±1, (…, B)."""
    return np.unpackbits(codes, axis=-1).astype(np.float32) * 2 - 1
