"""How alike two sets of vectors of the same texts are, whatever their widths and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    import numpy as np


def linear_cka(x_ND: np.ndarray, y_NE: np.ndarray) -> float:
    """Linear CKA (Kornblith et al. 2019): ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖), Frobenius norms of centred X and Y, in [0, 1].

    1 where one is the other rotated, scaled or shifted; near 0 where neither tells of the other. Chance gives about
    D / N with independent isotropic vectors, so N should be many times the widths.

    Args:
        x_ND: row i belongs to text i.
        y_NE: row i belongs to the same text; its width may differ.

    Returns:
        The figure; ``nan`` where one side has no spread.

    Raises:
        SpectraError: the arrays differ in length, or hold fewer than two rows.
    """
    import numpy as np

    x_ND, y_NE = (np.asarray(side, dtype=np.float64) for side in (x_ND, y_NE))
    if len(x_ND) != len(y_NE) or len(x_ND) < 2:
        raise SpectraError(f"CKA needs two arrays of the same two or more texts, not {len(x_ND)} and {len(y_NE)} rows.")
    x_ND, y_NE = x_ND - x_ND.mean(axis=0), y_NE - y_NE.mean(axis=0)
    scale = np.linalg.norm(x_ND.T @ x_ND) * np.linalg.norm(y_NE.T @ y_NE)
    return float(np.linalg.norm(y_NE.T @ x_ND) ** 2 / scale) if scale > 0 else float("nan")
