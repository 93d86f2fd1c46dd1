"""Sparse rows: from batches of vectors to CSR, in the order of the texts, and to the library's tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spectra_nsa.core.counts import counted
from spectra_nsa.metrics.finite import not_finite
from spectra_nsa.models.sparse.query_side import FALLBACK_WEIGHT

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class RowBuffer:
    """Sparse rows as they come from batches. Small arrays that outlive a batch would fragment the heap: it grows.

    Args:
        width: V.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._values, self._columns, self._lengths, self._positions = (bytearray() for _ in range(4))

    def add(self, vectors_BV: Tensor, positions: np.ndarray) -> None:
        """Adds the vectors of a batch, whose texts have these positions."""
        rows, columns = vectors_BV.nonzero(as_tuple=True)
        self._values += vectors_BV[rows, columns].float().cpu().numpy().tobytes()
        self._columns += columns.int().cpu().numpy().tobytes()
        self._lengths += np.bincount(rows.cpu().numpy(), minlength=len(vectors_BV)).astype(np.int64).tobytes()
        self._positions += np.asarray(positions, dtype=np.int64).tobytes()

    def rows(self) -> csr_matrix:
        """Returns the rows in the order of the texts. Warns of texts without active terms.

        Raises:
            SpectraError: a vector is not finite.
        """
        from scipy.sparse import csr_matrix

        lengths, positions = (np.frombuffer(part, dtype=np.int64) for part in (self._lengths, self._positions))
        values = np.frombuffer(self._values, dtype=np.float32)
        columns = np.frombuffer(self._columns, dtype=np.int32)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        if not np.isfinite(values).all():
            bad = np.unique(np.searchsorted(ends, np.flatnonzero(~np.isfinite(values)), side="right"))
            raise not_finite(len(bad), len(lengths), "the sparse encoder", "vectors")
        rows: csr_matrix = csr_matrix((values, columns, ends), shape=(len(lengths), self._width))
        rows = rows[np.argsort(positions)]
        terms = np.diff(rows.indptr)
        single = rows.data[rows.indptr[:-1][terms == 1]]
        warn_empty(int((single == np.float32(FALLBACK_WEIGHT)).sum()), int((terms == 0).sum()), len(lengths))
        return rows


def warn_empty(replaced: int, empty: int, texts: int) -> None:
    """Warns of texts whose vector would be empty, and of those whose vector is."""
    lines = {
        f"{counted(replaced, 'text')} of {texts:,} without an active term: the strongest of its own tokens stands for "
        "each": replaced,
        f"{counted(empty, 'text')} of {texts:,} without any term: no search finds them": empty,
    }
    for line, count in lines.items():
        if count:
            print(f"spectra: {line}", file=sys.stderr, flush=True)


def sparse_tensor(rows: csr_matrix) -> Tensor:
    """Returns CSR rows as a coalesced COO tensor, the form in which the library returns vectors."""
    coordinates = rows.tocoo()
    indices = torch.from_numpy(np.stack([coordinates.row, coordinates.col]).astype(np.int64))
    return torch.sparse_coo_tensor(
        indices, torch.from_numpy(coordinates.data), rows.shape, is_coalesced=True, check_invariants=False
    )


def static_vectors(static: Any, input: dict[str, Any]) -> Tensor:
    """Computes the weights of the tokens that occur in each text, (B, V) fp32."""
    ids_BT, mask_BT = input["input_ids"], input["attention_mask"]
    present_BV = torch.zeros(len(ids_BT), len(static.weight), device=ids_BT.device)
    present_BV.scatter_reduce_(1, ids_BT, mask_BT.float(), reduce="amax")
    return present_BV * static.weight.float()


def keep_strongest_static(vectors_BV: Tensor, static: Any, input: dict[str, Any], special_ids: Tensor) -> None:
    """Gives a text without any weight its strongest own token, the last of equals; special tokens do not count."""
    for row in (~vectors_BV.any(1)).nonzero().squeeze(1).tolist():
        ids_T = own_ids(input, row, special_ids)
        if len(ids_T):
            weights_T = static.weight.detach()[ids_T].float()
            vectors_BV[row, ids_T[(weights_T == weights_T.max()).nonzero()[-1]]] = FALLBACK_WEIGHT


def own_ids(input: dict[str, Any], row: int, special_ids: Tensor) -> Tensor:
    """Returns the distinct ids of a text without special tokens, in order."""
    ids_T = input["input_ids"][row][input["attention_mask"][row].bool()]
    return ids_T[~torch.isin(ids_T, special_ids.to(ids_T.device))].unique()
