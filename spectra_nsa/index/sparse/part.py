"""The part of an index that is searched by sparse vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.index.parts import Source
from spectra_nsa.index.sparse.impacts import check_form
from spectra_nsa.index.sparse.postings import Postings, merge_postings, write_postings
from spectra_nsa.index.sparse.pruning import Pruning, prune

NAME = "sparse"  # with which the files begin


class PostingsPart:
    """Posting lists of a fixed vocabulary.

    Args:
        width: size of the vocabulary.
        impacts: how weights are stored, see `impacts`.
        pruning: the rule by which small weights are left out, as `Pruning` or its fields; ``None`` keeps all.
        mass: the sum of all weights that were added so far.
        lost: the sum of those that pruning left out.
    """

    def __init__(
        self,
        width: int,
        impacts: str = "float32",
        pruning: Pruning | Mapping[str, Any] | None = None,
        mass: float = 0.0,
        lost: float = 0.0,
    ) -> None:
        if type(width) is not int or not 0 < width < 2**31:
            raise SpectraError(f"the vocabulary of an index cannot have {width!r} terms.")
        self.width, self.form = width, check_form(impacts)
        self.pruning = Pruning(**pruning) if isinstance(pruning, Mapping) else pruning
        self.mass, self.lost = float(mass), float(lost)

    def settings(self) -> dict[str, Any]:
        """Returns its kind and settings."""
        pruning = None if self.pruning is None else {"by": self.pruning.by, "value": self.pruning.value}
        facts = {"kind": "postings", "width": self.width, "impacts": self.form, "pruning": pruning}
        return facts | {"mass": self.mass, "lost": self.lost}

    def count(self, rows: Any) -> int:
        """Returns the number of rows. Raises `SpectraError` if they are not as `sparse_rows` wants them."""
        return int(sparse_rows(rows, self.width, "documents").shape[0])

    def write(self, folder: Path, rows: Any) -> None:
        """Writes the rows of a new segment."""
        rows = sparse_rows(rows, self.width, "documents")
        total = float(rows.data.sum(dtype=np.float64))
        if self.pruning is not None:
            rows = prune(rows, self.pruning)
        self.mass += total
        self.lost += max(0.0, total - float(rows.data.sum(dtype=np.float64)))
        write_postings(folder, NAME, rows, self.form)

    def merge(self, folder: Path, sources: Sequence[Source]) -> None:
        """Writes the kept rows of other segments."""
        opened = [(self.open(source.folder, source.documents), source.kept, None) for source in sources]
        merge_postings(folder, NAME, opened, self.width, self.form)

    def open(self, folder: Path, documents: int) -> Postings:
        """Opens the lists of a segment."""
        return Postings(folder, NAME, documents, self.width, self.form)

    def prepare(self, queries: Any, segments: Sequence[Postings]) -> Any:
        """Returns the queries as CSR rows. Raises `SpectraError` if they are of another width or not finite."""
        return sparse_rows(queries, self.width, "queries")

    def query_count(self, prepared: Any) -> tuple[int, int]:
        """Returns the number of queries and of those without any active dimension."""
        return int(prepared.shape[0]), int((np.diff(prepared.indptr) == 0).sum())


def sparse_rows(rows: Any, width: int, what: str) -> Any:
    """Returns rows as float32 CSR with sorted indices, without zeros and repetition.

    Args:
        rows: any scipy sparse matrix, or a dense array (N, V).
        width: the vocabulary of the index.
        what: what the rows are, for the message.

    Raises:
        SpectraError: they have another width, or weights that are negative or not finite.
    """
    from scipy.sparse import csr_matrix, issparse

    if not issparse(rows):
        rows = np.atleast_2d(np.asarray(rows))
    if rows.ndim != 2 or rows.shape[1] != width:
        found = f"{rows.shape[-1]:,}" if rows.ndim else "no"
        raise SpectraError(
            f"the {what} have {found} dimensions, but the index has {width:,}. Encode them with the model that "
            "the index was built with."
        )
    matrix = csr_matrix(rows, dtype=np.float32)
    if not (matrix.has_canonical_format and matrix.data.all()):
        matrix = matrix.copy()  # the caller's stays as it is
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    if len(matrix.data) and not (np.isfinite(matrix.data).all() and matrix.data.min() > 0):
        raise SpectraError(
            f"the {what} have weights that are negative or not finite: sparse search cannot rank by them."
        )
    return matrix
