"""Cosine similarity, and its correlation with graded judgments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix


def cosine_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes cos(aᵢ, bᵢ) for each row: (N, D), (N, D) → (N,) float64. A zero row has cosine 0 with everything."""
    import numpy as np

    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("nd,nd->n", a, b) / np.where(norms > 0, norms, 1.0)


def sparse_cosine_pairs(a: csr_matrix, b: csr_matrix) -> np.ndarray:
    """Computes `cosine_pairs` of two sparse matrices (N, V)."""
    import numpy as np

    a, b = a.astype(np.float64), b.astype(np.float64)

    def dots(x: csr_matrix, y: csr_matrix) -> np.ndarray:
        return np.asarray(x.multiply(y).sum(axis=1), dtype=np.float64).ravel()

    norms = np.sqrt(dots(a, a) * dots(b, b))
    return dots(a, b) / np.where(norms > 0, norms, 1.0)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Computes Pearson's r = cov(x, y) / (σ_x σ_y) of two (N,) arrays.

    Returns:
        r; ``nan`` if one side is constant (σ = 0) or contains NaN or infinity, or if N < 2.

    Raises:
        SpectraError: the arrays differ in length.
    """
    from scipy import stats

    x, y = _checked(x, y)
    return float(stats.pearsonr(x, y).statistic) if _defined(x, y) else float("nan")


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Computes Spearman's ρ = Pearson's r of the ranks (equal values share their mean rank) of two (N,) arrays.

    Returns:
        ρ; ``nan`` if one side is constant or contains NaN or infinity, or if N < 2.

    Raises:
        SpectraError: the arrays differ in length.
    """
    from scipy import stats

    x, y = _checked(x, y)
    return float(stats.spearmanr(x, y).statistic) if _defined(x, y) else float("nan")


def _checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    x, y = np.asarray(x, dtype=np.float64).ravel(), np.asarray(y, dtype=np.float64).ravel()
    if len(x) != len(y):
        raise SpectraError(f"a correlation needs two arrays of equal length, not {len(x)} and {len(y)}.")
    return x, y


def _defined(x: np.ndarray, y: np.ndarray) -> bool:
    import numpy as np

    return len(x) > 1 and all(bool(np.isfinite(side).all()) and bool(np.ptp(side) > 0) for side in (x, y))
