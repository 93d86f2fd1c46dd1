"""What sparse vectors cost an inverted index: active dimensions, document frequencies, postings visited.

Legend: Q queries, N documents, V terms. All vectors are rows of scipy sparse matrices. A weight of 0 is no entry, even
if it is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def active_dims(rows: csr_matrix) -> np.ndarray:
    """Returns the number of weights that are not 0 in each row: (N,) int64."""
    return _counts(rows, axis=1)


def document_frequencies(documents: csr_matrix) -> np.ndarray:
    """Returns the number of documents with each term, which is the length of its posting list: (V,) int64."""
    return _counts(documents, axis=0)


def postings_visited(queries: csr_matrix, documents: csr_matrix) -> np.ndarray:
    """Returns the total length of the posting lists of each query's terms: (Q,) int64.

    This is the number of multiplications of an exact search without pruning, and what its latency follows.
    """
    import numpy as np

    frequencies = document_frequencies(documents)
    present = (queries != 0).astype(np.int64)
    return np.asarray(present @ frequencies, dtype=np.int64)


def flops(queries: csr_matrix, documents: csr_matrix) -> np.ndarray:
    """Returns the mean number of terms that each query shares with a document: (Q,) float64.

    Its mean over the queries is Σ_v P(v in a query) · P(v in a document), the FLOPS of Paria et al. (2020), as
    sentence-transformers' evaluators report it.
    """
    return postings_visited(queries, documents) / max(1, documents.shape[0])


def top_share(frequencies: np.ndarray, terms: int) -> float:
    """Returns the share of all postings in the `terms` longest lists; 0 without postings."""
    import numpy as np

    total = frequencies.sum()
    return float(np.sort(frequencies)[::-1][:terms].sum() / total) if total else 0.0


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Returns minimum, 5 %, quartiles, 95 % and maximum of (N,) values by name, such as ``"p95"``; N is at least 1."""
    import numpy as np

    return {
        f"p{round(100 * q)}": float(value) for q, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    }


def _counts(rows: csr_matrix, axis: int) -> np.ndarray:
    import numpy as np

    return np.asarray((rows != 0).sum(axis=axis), dtype=np.int64).ravel()
