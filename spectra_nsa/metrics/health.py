"""The health of a model in training, from one small sample: has anything collapsed, died or fallen together?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra_nsa.metrics.embedding import embedding_statistics

if TYPE_CHECKING:
    import numpy as np

DEAD_BIT = 0.01  # a bit that this share of the texts, or fewer, set otherwise than the rest
_KEPT = ("mean_cosine", "uniformity", "alignment", "near_duplicates", "non_finite")


def embedding_health(anchors_ND: np.ndarray, positives_ND: np.ndarray) -> dict[str, float]:
    """How spread out the vectors of distinct texts are, and how near each lies to its partner.

    ``rank``        effective rank (RankMe, Garrido et al. 2023)
    ``rank_share``  the same over min(N, D), the most it can be
    ``entropy``     von Neumann entropy, see `von_neumann_entropy`
    ``uniformity``, ``alignment``  Wang & Isola 2020
    ``mean_cosine``, ``near_duplicates``, ``non_finite``  see `embedding_statistics`

    Args:
        anchors_ND: vectors of texts that are all different.
        positives_ND: the partner of each.
    """
    import numpy as np

    found = embedding_statistics(anchors_ND, partners=positives_ND)
    finite_ND = anchors_ND[np.isfinite(anchors_ND).all(axis=1)]
    figures = {
        "rank": found["effective_rank"],
        "rank_share": found["effective_rank"] / max(1, min(anchors_ND.shape)),
        "entropy": von_neumann_entropy(finite_ND),
    }
    return figures | {name: found[name] for name in _KEPT}


def von_neumann_entropy(rows_ND: np.ndarray) -> float:
    """−Σ λ log λ / log min(N, D), with λ the eigenvalues of the Gram matrix of the unit rows over N: in [0, 1].

    0 when all vectors point one way, 1 when every direction that N vectors can fill is filled alike. Unlike the
    effective rank it weighs squared singular values, so weak directions count less. ``nan`` where min(N, D) < 2 or all
    rows are zero.
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
    """How many of A anchors are at work on N texts.

    ``anchors_used``     the share of anchors that are the nearest of some text
    ``anchors_entropy``  the entropy of how often each is, over log min(N, A): 1 when all are alike
    """
    import numpy as np

    anchors = cosines_NA.shape[1]
    counts_A = np.bincount(cosines_NA.argmax(axis=1), minlength=anchors)
    shares = counts_A[counts_A > 0] / counts_A.sum()
    most = np.log(min(cosines_NA.shape))
    entropy = float(-(shares * np.log(shares)).sum() / most) if most > 0 else float("nan")
    return {"anchors_used": float((counts_A > 0).mean()), "anchors_entropy": max(0.0, entropy)}


def bit_health(codes_NB: np.ndarray) -> dict[str, float]:
    """Whether the bits of packed (N, W / 8) codes say something, and each something of its own.

    With p the share of texts that set a bit:

    ``bits_balance``      mean of 1 − |2p − 1|: 1 when every bit halves the texts
    ``bits_dead``         the share of bits with p or 1 − p at most 0.01; ``nan`` with fewer than 100 texts, of which a
                          live bit may by chance miss all
    ``bits_correlation``  mean |Pearson correlation| of distinct bits that vary at all; ``nan`` with fewer than two
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
