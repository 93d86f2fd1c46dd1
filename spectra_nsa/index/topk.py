"""Exact search whose memory does not grow with the corpus: blocks of queries × blocks of documents, a running top k.

Vectors are dense, (n, D) float32, or sparse, scipy's CSR rows; the score is their inner product. Legend: B queries of
a block, N documents of a group, K hits, P pairs of a query with a document of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra_nsa.index.blocks import Blocks

ROWS = 2_048  # of a block
GROUP = 8  # blocks of documents that are scored at once: 2,048 × 16,384 scores are 134 MB

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Own(NamedTuple):
    """Documents that belong to a query of the block: no hits, but scored.

    Attributes:
        query_P: the query's place in the block.
        document_P: the document.
    """

    query_P: Ints
    document_P: Ints


class Found(NamedTuple):
    """What a block of queries found.

    Attributes:
        index_BK: documents, best first; −1 where there are fewer.
        scores_BK: their scores; −∞ beside −1.
        own_P: the scores of the queries' own documents.
    """

    index_BK: Ints
    scores_BK: Floats
    own_P: Floats


class Vectors:
    """Vectors on the disk, `ROWS` a block.

    Args:
        blocks: where they lie, as `vectors`, or as CSR's `data`, `indices`, `indptr` and `width`.
        rows: how many.
    """

    def __init__(self, blocks: Blocks, rows: int) -> None:
        self.blocks = blocks
        self.rows = rows

    def block(self, number: int) -> Any:
        """One block, dense or sparse."""
        found = self.blocks.get(number)
        assert found is not None, f"{self.blocks.folder} was deleted while it was in use"
        return found["vectors"] if "vectors" in found else unpack(found)

    def groups(self) -> Iterator[tuple[int, Any]]:
        """The place of the first row, and the rows, of each group of blocks."""
        count = blocks_of(self.rows)
        for first in range(0, count, GROUP):
            parts = [self.block(number) for number in range(first, min(first + GROUP, count))]
            yield first * ROWS, stack(parts)


class Matrix:
    """Sparse vectors in memory, with the methods of `Vectors`."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.rows = matrix.shape[0]

    def block(self, number: int) -> Any:
        return self.matrix[number * ROWS : (number + 1) * ROWS]

    def groups(self) -> Iterator[tuple[int, Any]]:
        for start in range(0, self.rows, ROWS * GROUP):
            yield start, self.matrix[start : start + ROWS * GROUP]


def blocks_of(rows: int) -> int:
    """How many blocks so many rows fill."""
    return -(-rows // ROWS)


def pack(matrix: Any) -> dict[str, Any]:
    """CSR rows as plain arrays."""
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "width": matrix.shape[1]}


def unpack(found: dict[str, Any]) -> Any:
    """The CSR rows of `pack`."""
    from scipy.sparse import csr_matrix

    shape = (len(found["indptr"]) - 1, int(found["width"]))
    return csr_matrix((found["data"], found["indices"], found["indptr"]), shape=shape)


def stack(parts: list[Any]) -> Any:
    """Blocks, one below the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from scipy.sparse import vstack

    return vstack(parts, format="csr")


def top_k(queries_B: Any, documents: Vectors | Matrix, k: int, own: Own) -> Found:
    """The k best documents of each query of a block, its own left out. Equal scores are ordered by place.

    A sparse product of zero or less is no hit: the two share no word.

    Args:
        queries_B: a block of vectors.
        documents: all documents.
        k: hits a query.
        own: the queries' own documents.
    """
    sparse = not isinstance(queries_B, np.ndarray)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = queries_B if sparse else torch.from_numpy(queries_B).to(device)
    best_BK = torch.empty((queries_B.shape[0], 0), device=device)
    index_BK = torch.empty((queries_B.shape[0], 0), dtype=torch.int64, device=device)
    own_P = np.zeros(len(own.query_P), dtype=np.float32)
    for start, rows in documents.groups():
        scores_BN = _products(asked, rows, device)
        inside = np.flatnonzero((own.document_P >= start) & (own.document_P < start + rows.shape[0]))
        places = torch.from_numpy(own.query_P[inside]), torch.from_numpy(own.document_P[inside] - start)
        own_P[inside] = scores_BN[places].cpu().numpy()
        if sparse:
            scores_BN[scores_BN <= 0] = -torch.inf
        scores_BN[places] = -torch.inf
        part_BK, places_BK = scores_BN.topk(min(k, rows.shape[0]), dim=1)
        del scores_BN
        best_BK, index_BK = torch.cat([best_BK, part_BK], 1), torch.cat([index_BK, places_BK + start], 1)
        best_BK, order_BK = best_BK.topk(min(k, best_BK.shape[1]), dim=1)
        index_BK = index_BK.gather(1, order_BK)
    return Found(*_in_order(index_BK.cpu().numpy(), best_BK.cpu().numpy()), own_P)


def pair_scores(queries_B: Any, documents: Vectors | Matrix, pairs: Own) -> Floats:
    """The score of each pair of a query of the block with a document: (P,)."""
    scores_P = np.zeros(len(pairs.query_P), dtype=np.float32)
    for start, rows in documents.groups():
        inside = np.flatnonzero((pairs.document_P >= start) & (pairs.document_P < start + rows.shape[0]))
        for part in np.array_split(inside, len(inside) // (4 * ROWS) + 1):
            one, other = queries_B[pairs.query_P[part]], rows[pairs.document_P[part] - start]
            products = one * other if isinstance(one, np.ndarray) else one.multiply(other)
            scores_P[part] = np.asarray(products.sum(axis=1)).ravel()
    return scores_P


def _products(asked: Any, rows: Any, device: torch.device) -> Tensor:
    if isinstance(rows, np.ndarray):
        return asked @ torch.from_numpy(rows).to(device).T
    return torch.from_numpy((asked @ rows.T).toarray().astype(np.float32, copy=False)).to(device)


def _in_order(index_BK: Ints, scores_BK: Floats) -> tuple[Ints, Floats]:
    """Best first, equal ones by place."""
    index_BK = np.where(np.isfinite(scores_BK), index_BK, -1)
    order_BK = np.lexsort((index_BK, -scores_BK), axis=1)
    return np.take_along_axis(index_BK, order_BK, 1), np.take_along_axis(scores_BK, order_BK, 1)
