"""Statistics of a set of embeddings: finite values, spread, near duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    import numpy as np

SAMPLE = 2000
NEAR_DUPLICATE = 0.999


def embedding_statistics(
    embeddings: np.ndarray, *, partners: np.ndarray | None = None, sample: int = SAMPLE, seed: int = 0
) -> dict[str, float]:
    """Computes label-free statistics of an (N, D) array, with unit rows u = x / ‖x‖ and distinct pairs i ≠ j.

    ``mean_norm``            mean ‖x‖
    ``mean_cosine``          mean uᵢ·uⱼ: near 0 if directions are spread out, near 1 if all collapse into a cone
    ``log_mean_square_cosine``  log mean (uᵢ·uⱼ)²: minus the Rényi-2 entropy of the linear kernel; −log D if isotropic
    ``uniformity``           log mean exp(−2 ‖uᵢ − uⱼ‖²): −4 at best (Wang & Isola 2020)
    ``effective_rank``       exp(−Σ pₖ log pₖ), pₖ = σₖ / Σσ over the singular values of u (RankMe): between 1 and D
    ``near_duplicates``      the fraction of rows that have another row with cosine above 0.999
    ``non_finite``           the number of rows with NaN or ±∞; the other figures ignore them
    ``alignment``            mean ‖uᵢ − vᵢ‖² over the given pairs, 0 at best

    All except ``non_finite`` use at most `sample` rows, drawn without replacement. Memory is sample² floats.

    Args:
        embeddings: (N, D).
        partners: (N, D), where row i belongs to row i of `embeddings`; ``None`` skips ``alignment``.
        sample: the maximum number of rows to use.
        seed: the seed of the draw.

    Returns:
        name → figure. Figures of pairs are ``nan`` with fewer than two rows; with none, all except ``non_finite`` are.

    Raises:
        SpectraError: an array is not two-dimensional, or `partners` has another shape.
    """
    import numpy as np

    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or (partners is not None and np.shape(partners) != embeddings.shape):
        raise SpectraError(
            f"embeddings must be an (N, D) array (and partners of the same shape), not {embeddings.shape}."
        )
    finite = np.isfinite(embeddings).all(axis=1)
    usable = finite if partners is None else finite & np.isfinite(partners).all(axis=1)
    rows = np.flatnonzero(usable)
    if len(rows) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(rows, size=sample, replace=False))
    norms, unit = _unit(embeddings[rows])
    figures = {"non_finite": float((~finite).sum()), "mean_norm": float(norms.mean()) if len(rows) else float("nan")}
    figures |= _pair_figures(unit)
    figures["effective_rank"] = effective_rank(unit)
    if partners is not None:
        _, other = _unit(np.asarray(partners)[rows])
        figures["alignment"] = float(((unit - other) ** 2).sum(axis=1).mean()) if len(rows) else float("nan")
    return figures


def effective_rank(rows: np.ndarray) -> float:
    """Computes RankMe (Garrido et al. 2023): exp of the entropy of the normalized singular values of an (N, D) array.

    The paper adds ε = 1e-7 inside the logarithm; here zero values are dropped instead, which is the limit ε → 0.
    Returns ``nan`` for an empty or all-zero array.
    """
    import numpy as np

    values = np.linalg.svd(np.asarray(rows, dtype=np.float64), compute_uv=False) if len(rows) else np.empty(0)
    if not len(values) or values.sum() == 0:
        return float("nan")
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns norms (N,) and unit rows (N, D) in float64. A zero row stays zero."""
    import numpy as np

    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1)
    return norms, rows / np.where(norms > 0, norms, 1.0)[:, None]


def _pair_figures(unit: np.ndarray) -> dict[str, float]:
    """Computes the figures over distinct pairs of (N, D) unit rows."""
    import numpy as np

    names = ("mean_cosine", "log_mean_square_cosine", "uniformity", "near_duplicates")
    n = len(unit)
    if n < 2:
        return dict.fromkeys(names, float("nan"))
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, 0.0)
    pairs = n * (n - 1)
    mean_square = float((cosines**2).sum() / pairs)
    kernel = np.exp(4.0 * (cosines - 1.0))  # ‖u − v‖² = 2 − 2 u·v for unit rows
    np.fill_diagonal(kernel, 0.0)
    return {
        "mean_cosine": float(cosines.sum() / pairs),
        "log_mean_square_cosine": float(np.log(mean_square)) if mean_square > 0 else float("-inf"),
        "uniformity": float(np.log(kernel.sum() / pairs)),
        "near_duplicates": float((cosines > NEAR_DUPLICATE).any(axis=1).mean()),
    }
