"""A check for NaN and infinity in vectors and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError


def check_finite(values: NDArray[Any], system: str, what: str = "vectors") -> None:
    """Checks that values are finite before they are ranked, fitted to or saved.

    Args:
        values: (N, …): vectors (N, D), or scores (N,).
        system: what computed them, for the message.
        what: what they are, in the plural.

    Raises:
        SpectraError: some hold NaN or infinity; the message says how many.
    """
    if np.isfinite(values).all():
        return
    finite_N = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    raise not_finite(int((~finite_N).sum()), len(values), system, what)


def not_finite(count: int, total: int, system: str, what: str = "vectors") -> SpectraError:
    """Returns the error of `check_finite`."""
    return SpectraError(
        f"{system}: {count:,} of {total:,} {what} hold NaN or infinity. The weights are damaged, or the number format "
        "overflows. Check the weights, or use another model."
    )
