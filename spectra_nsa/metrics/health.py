"""The health of a model in training, from one small sample: collapsed vectors, unused anchors, dead bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.metrics.embedding import embedding_statistics

if TYPE_CHECKING:
    import numpy as np

DEAD_BIT = 0.01  # a bit is dead if at most this fraction of the texts differ from the rest
_SHARED_FIGURES = ("mean_cosine", "uniformity", "alignment", "near_duplicates", "non_finite")


def embedding_health(anchors_ND: np.ndarray, positives_ND: np.ndarray) -> dict[str, float]:
    """Computes how spread out the vectors of distinct texts are, and how close each is to its partner.

    ``rank``        effective rank (RankMe, Garrido et al. 2023)
    ``rank_share``  effective rank over its maximum, min(N, D)
    ``entropy``     von Neumann entropy, see `von_neumann_entropy`
    ``uniformity``, ``alignment``  Wang & Isola 2020
    ``mean_cosine``, ``near_duplicates``, ``non_finite``  see `embedding_statistics`

    Args:
        anchors_ND: the vectors of distinct texts.
        positives_ND: the vector of the partner of each text.
    """
    import numpy as np

    statistics = embedding_statistics(anchors_ND, partners=positives_ND)
    finite_ND = anchors_ND[np.isfinite(anchors_ND).all(axis=1)]
    figures = {
        "rank": statistics["effective_rank"],
        "rank_share": statistics["effective_rank"] / max(1, min(anchors_ND.shape)),
        "entropy": von_neumann_entropy(finite_ND),
    }
    return figures | {name: statistics[name] for name in _SHARED_FIGURES}


def von_neumann_entropy(rows_ND: np.ndarray) -> float:
    """Computes −Σ λ log λ / log min(N, D), with λ the eigenvalues of the Gram matrix of the unit rows over N.

    It is in [0, 1]: 0 if all vectors point in one direction, and 1 if they are spread evenly over all directions that N
    vectors can span. Unlike the effective rank it uses squared singular values, so weak directions count less. It is
    ``nan`` if min(N, D) < 2 or all rows are zero.
    """
    import numpy as np

    rows_ND = np.asarray(rows_ND, dtype=np.float64)
    if min(rows_ND.shape) < 2:
        return float("nan")
    norms_N = np.linalg.norm(rows_ND, axis=1)
    squares = np.linalg.svd(rows_ND[norms_N > 0] / norms_N[norms_N > 0, None], compute_uv=False) ** 2
    if squares.sum() == 0:
        return float("nan")
    shares = squares[squares > 0] / squares.sum()
    return float(max(0.0, -(shares * np.log(shares)).sum()) / np.log(min(rows_ND.shape)))


def anchor_health(cosines_NA: np.ndarray) -> dict[str, float]:
    """Computes how many of A anchors are used by N texts.

    ``anchors_used``     the fraction of anchors that are the nearest anchor of at least one text
    ``anchors_entropy``  the entropy of the counts of nearest texts, over log min(N, A): 1 if all counts are equal
    """
    import numpy as np

    anchors = cosines_NA.shape[1]
    counts_A = np.bincount(cosines_NA.argmax(axis=1), minlength=anchors)
    shares = counts_A[counts_A > 0] / counts_A.sum()
    maximum = np.log(min(cosines_NA.shape))
    entropy = float(-(shares * np.log(shares)).sum() / maximum) if maximum > 0 else float("nan")
    return {"anchors_used": float((counts_A > 0).mean()), "anchors_entropy": max(0.0, entropy)}


def bit_health(codes_NB: np.ndarray) -> dict[str, float]:
    """Computes how informative and how independent the bits of packed (N, W / 8) codes are.

    With p the fraction of texts that set a bit:

    ``bits_balance``      mean of 1 − |2p − 1|: 1 if every bit is set by half of the texts
    ``bits_dead``         the fraction of bits with p or 1 − p at most 0.01; ``nan`` with fewer than 100 texts (too
                          few to tell)
    ``bits_correlation``  mean |Pearson correlation| of distinct bits that vary; ``nan`` with fewer than two such bits
    """
    import numpy as np

    bits_NW = np.unpackbits(codes_NB, axis=1).astype(np.float64)
    set_W = bits_NW.mean(axis=0)
    varying = bits_NW[:, (set_W > 0) & (set_W < 1)]
    width = varying.shape[1]
    correlation = float("nan")
    enough = len(bits_NW) * DEAD_BIT >= 1
    if width > 1:
        units = (varying - varying.mean(axis=0)) / varying.std(axis=0)
        matrix = np.abs(units.T @ units) / len(units)
        correlation = float((matrix.sum() - np.trace(matrix)) / (width * (width - 1)))
    return {
        "bits_balance": float((1 - np.abs(2 * set_W - 1)).mean()),
        "bits_dead": float((np.minimum(set_W, 1 - set_W) <= DEAD_BIT).mean()) if enough else float("nan"),
        "bits_correlation": correlation,
    }
