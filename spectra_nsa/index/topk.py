"""Exact search in blocks of queries × groups of documents, so that memory does not grow with the corpus.

The score of a query and a document is the inner product of their vectors. Legend: B queries of a block, N documents of
a group, K hits, P query-document pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.index.vectors import ROWS, DiskVectors, SparseVectors

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class IndexPairs(NamedTuple):
    """Query-document pairs by index.

    Attributes:
        query_P: the query's index in its block.
        document_P: the document's index.
    """

    query_P: Ints
    document_P: Ints


class TopHits(NamedTuple):
    """The hits of a block of queries.

    Attributes:
        index_BK: document indices, best first; −1 if there are fewer than K hits.
        scores_BK: their scores; −∞ beside −1.
        excluded_P: the scores of the pairs that were excluded from the hits.
    """

    index_BK: Ints
    scores_BK: Floats
    excluded_P: Floats


# Dense queries, the documents of a group, the pairs to exclude, K → scores and indices (in any order) of the K best
# documents of each query, and the scores of the excluded pairs.
GroupSearch = Callable[[Floats, Floats, IndexPairs, int], tuple[Floats, Ints, Floats]]


def search_group(queries_BD: Any, documents_ND: Any, excluded: IndexPairs, k: int) -> tuple[Floats, Ints, Floats]:
    """Searches one group of documents; a `GroupSearch` that takes sparse vectors too.

    A sparse score of zero or less is no hit: query and document share no term.
    """
    dense = isinstance(documents_ND, np.ndarray)
    scores_BN = queries_BD @ documents_ND.T if dense else (queries_BD @ documents_ND.T).toarray().astype(np.float32)
    excluded_P = scores_BN[excluded]
    if not dense:
        scores_BN[scores_BN <= 0] = -np.inf
    scores_BN[excluded] = -np.inf
    return (*_best(scores_BN, k), excluded_P)


def top_k(
    queries_B: Any,
    documents: DiskVectors | SparseVectors,
    k: int,
    excluded: IndexPairs,
    *,
    search_dense: GroupSearch = search_group,
) -> TopHits:
    """Returns the k best documents of each query of a block. Equal scores are ordered by document index.

    Args:
        queries_B: a block of vectors, dense or sparse as the documents are.
        documents: all documents.
        k: hits per query.
        excluded: pairs that are scored but are never hits.
        search_dense: searches a group of dense documents, on a GPU for example.
    """
    search = search_dense if isinstance(queries_B, np.ndarray) else search_group
    scores_BK = np.empty((queries_B.shape[0], 0), dtype=np.float32)
    index_BK = np.empty((queries_B.shape[0], 0), dtype=np.int64)
    excluded_P = np.zeros(len(excluded.query_P), dtype=np.float32)
    for start, rows in documents.groups():
        inside = _inside(excluded, start, rows.shape[0])
        pairs = IndexPairs(excluded.query_P[inside], excluded.document_P[inside] - start)
        group_scores_BK, group_index_BK, excluded_P[inside] = search(queries_B, rows, pairs, min(k, rows.shape[0]))
        scores_BK = np.concatenate([scores_BK, group_scores_BK], axis=1)
        index_BK = np.concatenate([index_BK, group_index_BK + start], axis=1)
        scores_BK, best_BK = _best(scores_BK, min(k, scores_BK.shape[1]))
        index_BK = np.take_along_axis(index_BK, best_BK, 1)
    return TopHits(*_ordered(index_BK, scores_BK), excluded_P)


def pair_scores(queries_B: Any, documents: DiskVectors | SparseVectors, pairs: IndexPairs) -> Floats:
    """Returns the score of each pair of a query of the block and a document: (P,)."""
    scores_P = np.zeros(len(pairs.query_P), dtype=np.float32)
    for start, rows in documents.groups():
        inside = _inside(pairs, start, rows.shape[0])
        for part in np.array_split(inside, len(inside) // (4 * ROWS) + 1):
            left, right = queries_B[pairs.query_P[part]], rows[pairs.document_P[part] - start]
            products = left * right if isinstance(left, np.ndarray) else left.multiply(right)
            scores_P[part] = np.asarray(products.sum(axis=1)).ravel()
    return scores_P


def _inside(pairs: IndexPairs, start: int, count: int) -> Ints:
    """Returns which pairs have one of the documents start … start + count − 1."""
    return np.flatnonzero((pairs.document_P >= start) & (pairs.document_P < start + count))


def _best(scores_BN: Floats, k: int) -> tuple[Floats, Ints]:
    index_BK = np.argpartition(scores_BN, -k, axis=1)[:, -k:]
    return np.take_along_axis(scores_BN, index_BK, 1), index_BK


def _ordered(index_BK: Ints, scores_BK: Floats) -> tuple[Ints, Floats]:
    """Sorts by descending score, then by index."""
    index_BK = np.where(np.isfinite(scores_BK), index_BK, -1)
    order_BK = np.lexsort((index_BK, -scores_BK), axis=1)
    return np.take_along_axis(index_BK, order_BK, 1), np.take_along_axis(scores_BK, order_BK, 1)
