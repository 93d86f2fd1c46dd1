"""Centered kernel alignment: the similarity of two sets of vectors of the same texts, of any widths and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    import numpy as np


def linear_cka(x_ND: np.ndarray, y_NE: np.ndarray) -> float:
    """Computes linear CKA (Kornblith et al. 2019): ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), Frobenius norms of centered X and Y.

    The result is in [0, 1]: 1 if X is Y rotated, scaled or shifted, near 0 if they are unrelated. Independent isotropic
    vectors give about D / N, so N should be many times the widths.

    Args:
        x_ND: row i is the vector of text i.
        y_NE: row i is another vector of text i; the width may differ.

    Returns:
        the similarity; ``nan`` if the rows of one side are all equal.

    Raises:
        SpectraError: the arrays differ in length, or have fewer than two rows.
    """
    import numpy as np

    x_ND, y_NE = (np.asarray(side, dtype=np.float64) for side in (x_ND, y_NE))
    if len(x_ND) != len(y_NE) or len(x_ND) < 2:
        raise SpectraError(
            f"CKA needs two arrays with the same number of rows, at least two, not {len(x_ND)} and {len(y_NE)} rows."
        )
    x_ND, y_NE = x_ND - x_ND.mean(axis=0), y_NE - y_NE.mean(axis=0)
    scale = np.linalg.norm(x_ND.T @ x_ND) * np.linalg.norm(y_NE.T @ y_NE)
    return float(np.linalg.norm(y_NE.T @ x_ND) ** 2 / scale) if scale > 0 else float("nan")
