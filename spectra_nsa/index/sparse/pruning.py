"""Pruning: leaving out small weights of documents when they are added. It makes search faster and inexact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from spectra_nsa.core.errors import UsageError, unknown_name

PruneBy = Literal["top", "ratio", "mass"]


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """A rule by which small weights are left out.

    Attributes:
        by: ``"top"`` keeps the largest `value` weights of a document; ``"ratio"`` those of at least `value` times its
            largest; ``"mass"`` the fewest largest ones whose sum is at least `value` times the sum of all.
        value: see `by`.
    """

    by: PruneBy
    value: float

    def __post_init__(self) -> None:
        if self.by not in get_args(PruneBy):
            raise unknown_name("pruning", self.by, get_args(PruneBy))
        limit = self.value >= 1 and self.value == int(self.value) if self.by == "top" else 0 < self.value <= 1
        if not limit:
            wanted = "a whole number of at least 1" if self.by == "top" else "above 0 and at most 1"
            raise UsageError(f"the value of pruning by {self.by} must be {wanted}, not {self.value:g}.")


def parse_pruning(text: str) -> Pruning:
    """Returns the rule that ``top=100``, ``ratio=0.1`` or ``mass=0.9`` describes.

    Raises:
        UsageError: it describes none.
    """
    by, equals, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not equals or not np.isfinite(number):
        raise UsageError(f"{text!r} is no pruning. Write top=100, ratio=0.1 or mass=0.9.")
    return Pruning(by=by, value=number)  # type: ignore[arg-type]


def prune(rows: Any, rule: Pruning) -> Any:
    """Returns rows without their small weights; of equal weights, those of the first terms are kept.

    Args:
        rows: CSR rows of positive weights with sorted indices.
        rule: which weights are kept.
    """
    from scipy.sparse import csr_matrix

    sizes = np.diff(rows.indptr)
    row = np.repeat(np.arange(rows.shape[0]), sizes)
    if rule.by == "ratio":
        largest = np.zeros(rows.shape[0], dtype=rows.dtype)
        np.maximum.at(largest, row, rows.data)
        keep = rows.data >= np.float32(rule.value) * largest[row]
    else:
        order = np.lexsort((rows.indices, -rows.data, row))
        starts = np.repeat(rows.indptr[:-1], sizes)
        if rule.by == "top":
            chosen = np.arange(rows.nnz) - starts < int(rule.value)
        else:
            before = np.concatenate([[0.0], np.cumsum(rows.data[order], dtype=np.float64)])
            totals = before[rows.indptr[1:]] - before[rows.indptr[:-1]]
            chosen = before[:-1] - before[starts] < rule.value * totals[row] * (1 - 1e-12)
        keep = np.empty(rows.nnz, dtype=bool)
        keep[order] = chosen
    counts = np.bincount(row[keep], minlength=rows.shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return csr_matrix((rows.data[keep], rows.indices[keep], indptr), shape=rows.shape)
