"""The health of a sparse encoder in training, measured on a small sample of texts that is fixed for the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectra_nsa.training.data.training_data import TrainingData
from spectra_nsa.training.monitor.health import distinct_pairs, pair_columns

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder


class SparseHealth:
    """A sample of pairs with distinct queries, on which the use of the vocabulary is measured.

    Args:
        data: its held-out pairs are drawn from, or its training rows without held-out pairs.
        rows: the most pairs.
        seed: decides which pairs are drawn.
        precision: see `resolve_precision`.
    """

    def __init__(self, data: TrainingData, rows: int, *, seed: int, precision: str) -> None:
        source = data.dev if data.dev is not None and data.dev_kind == "pairs" else data.train
        columns = pair_columns(source)
        self.queries, self.documents = distinct_pairs(source, columns, rows, seed)
        self.precision = precision

    def measure(self, model: SpectraSparseEncoder) -> dict[str, float]:
        """Returns for each side the active terms, the share of the vocabulary that is zero, the highest document
        frequency and the mean length of a posting list, and the mean cost of a match.

        Returns:
            name → figure; names begin with `health_`.
        """
        training = model.training
        queries = model.encode_csr(self.queries, "query", precision=self.precision)
        documents = model.encode_csr(self.documents, "document", precision=self.precision)
        model.train(training)
        figures = _figures("query", queries) | _figures("document", documents)
        shares = [
            np.bincount(rows.indices, minlength=rows.shape[1]) / max(1, rows.shape[0]) for rows in (queries, documents)
        ]
        figures["match_flops"] = float(shares[0] @ shares[1])  # expected products of a query and a document
        return {f"health_{name}": round(value, 5) for name, value in figures.items()}


def _figures(side: str, rows: csr_matrix) -> dict[str, float]:
    texts, width = rows.shape
    postings = np.bincount(rows.indices, minlength=width)
    used = postings[postings > 0]
    return {
        f"{side}_active": rows.nnz / max(1, texts),
        f"{side}_sparsity": 1 - rows.nnz / max(1, texts * width),
        f"{side}_highest_df": float(postings.max(initial=0)) / max(1, texts),
        f"{side}_posting_length": float(used.mean()) if len(used) else 0.0,
    }
