"""The weights of weighted fusion, fitted on queries whose relevant documents are known.

All weights on a grid of the simplex are tried, by nDCG@10. Cross-validation guards against overfitting: the queries are
split into five parts; weights chosen on four of them are scored on the fifth. The fitted weights, the mean of the five
choices, are used only if they are better on the held-out parts than reciprocal rank fusion and than the best single
retriever, by more than one standard error of the difference. Otherwise the better of these two is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.index.hits import Retriever
from spectra_nsa.index.hybrid import DEPTH, Candidates, Fusion, fuse, gather, standardized

RULE = "weights are used only if they are better than rrf and the best single one by more than one standard error"
STEPS = 20  # of the grid: weights are multiples of 1/20
FOLDS = 5
MIN_QUERIES = 25
CUT = 10  # of nDCG


def fit_fusion(
    retrievers: Mapping[str, Retriever],
    queries: Mapping[str, Any],
    relevant: Sequence[Mapping[int, float]],
    *,
    depth: int = DEPTH,
) -> Fusion:
    """Fits a fusion on development queries.

    Args:
        retrievers: by name; at least two.
        queries: for each retriever, the same Q queries in its form.
        relevant: for each query, position → grade of the relevant documents.
        depth: hits of each retriever that are fused.

    Raises:
        SpectraError: there are fewer than 25 queries with a relevant document.
    """
    names = list(retrievers)
    candidates, _ = gather(retrievers, queries, depth)
    judged = [row for row, grades in enumerate(relevant) if any(grade > 0 for grade in grades.values())]
    if len(relevant) != len(candidates.positions):
        raise SpectraError(f"there are {len(candidates.positions):,} queries but {len(relevant):,} sets of documents.")
    if len(judged) < MIN_QUERIES:
        raise SpectraError(
            f"only {len(judged)} queries have a relevant document: fitting weights needs {MIN_QUERIES}. "
            "Use reciprocal rank fusion, which needs none."
        )
    grid = _simplex(len(names))
    quality = _grid_quality(candidates, grid, [relevant[row] for row in judged], judged)
    held_out, chosen = _cross_validated(quality, grid)
    rrf = _rrf_quality(candidates, names, relevant, judged)
    single = {name: quality[int(np.flatnonzero(grid[:, at] == 1.0)[0])] for at, name in enumerate(names)}
    best = max(single, key=lambda name: float(single[name].mean()))
    weights = dict(zip(names, chosen.round(4).tolist(), strict=True))
    others = {"rrf": rrf, best: single[best]}
    gains = [held_out - values for values in others.values()]
    better = all(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)) for gain in gains)
    winner = "weighted" if better else max(others, key=lambda name: float(others[name].mean()))
    means = {"weighted": held_out, "rrf": rrf, **single}
    fit = {
        "queries": len(judged),
        "metric": f"ndcg@{CUT}",
        "held_out": {name: round(float(values.mean()), 4) for name, values in means.items()},
        "weights": weights,
        "chosen": winner,
    }
    if winner == "rrf":
        return Fusion(method="rrf", depth=depth, fit=fit)
    used = weights if winner == "weighted" else {winner: 1.0}
    return Fusion(method="weighted", weights=used, depth=depth, fit=fit)


def held_out_figures(fit: Mapping[str, Any]) -> str:
    """Returns the held-out quality of each way to fuse in words.

    Args:
        fit: what `fit_fusion` says of itself (`Fusion.fit`).
    """
    return ", ".join(f"{name} {value:.3f}" for name, value in fit["held_out"].items())


def _simplex(size: int) -> NDArray[np.float64]:
    """Returns all weights (G, R) that are multiples of 1/STEPS with sum 1."""
    cuts = itertools.combinations(range(STEPS + size - 1), size - 1)
    rows = [np.diff([-1, *cut, STEPS + size - 1]) - 1 for cut in cuts]
    return np.array(rows, dtype=np.float64) / STEPS


def ndcg(positions: NDArray[np.int64], relevant: Sequence[Mapping[int, float]]) -> NDArray[np.float64]:
    """Returns the nDCG@10 of each query, with linear gain, from the positions (Q, ≥ 10) of its hits."""
    discount = 1 / np.log2(np.arange(2, CUT + 2))
    values = np.zeros(len(positions))
    for row, grades in enumerate(relevant):
        gains = np.array([max(grades.get(int(at), 0.0), 0.0) for at in positions[row, :CUT]])
        ideal = np.sort([grade for grade in grades.values() if grade > 0])[::-1][:CUT]
        values[row] = (gains * discount[: len(gains)]).sum() / (ideal * discount[: len(ideal)]).sum()
    return values


def _grid_quality(
    candidates: Candidates, grid: NDArray[np.float64], relevant: Sequence[Mapping[int, float]], judged: Sequence[int]
) -> NDArray[np.float64]:
    """Returns the nDCG@10 (G, Q) of each query with each of the weights.

    A relevant candidate's gain is discounted by its rank, which is counted directly: only relevant documents matter.
    """
    scores = standardized(candidates)
    quality = np.zeros((len(grid), len(judged)))
    for number, (row, grades) in enumerate(zip(judged, relevant, strict=True)):
        at = candidates.positions[row]
        places = [int(np.flatnonzero(at == key)[0]) for key, grade in grades.items() if grade > 0 and key in at]
        ideal = np.sort([grade for grade in grades.values() if grade > 0])[::-1][:CUT]
        best = (ideal / np.log2(np.arange(2, len(ideal) + 2))).sum()
        fused = (grid.astype(np.float32) @ scores[:, row, :]).astype(np.float32)
        fused[:, at < 0] = -np.inf
        for place in places:
            own = fused[:, [place]]
            rank = (fused > own).sum(1) + ((fused == own) & (np.arange(len(at)) < place)).sum(1)
            quality[:, number] += np.where(rank < CUT, grades[int(at[place])] / np.log2(rank + 2), 0.0)
        quality[:, number] /= best
    return quality


def _cross_validated(
    quality: NDArray[np.float64], grid: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the held-out quality (Q,) of weights chosen on the other folds, and the mean of the choices."""
    folds = np.random.default_rng(0).permutation(quality.shape[1]) % FOLDS
    held_out, choices = np.zeros(quality.shape[1]), []
    for fold in range(FOLDS):
        means = quality[:, folds != fold].mean(1)
        near = means >= means.max() - 1e-9  # equally good weights: the middle of them
        choice = grid[near].mean(0)
        choices.append(choice)
        nearest = int(np.abs(grid - choice).sum(1).argmin())
        held_out[folds == fold] = quality[nearest, folds == fold]
    return held_out, np.mean(choices, axis=0)


def _rrf_quality(
    candidates: Candidates, names: Sequence[str], relevant: Sequence[Mapping[int, float]], judged: Sequence[int]
) -> NDArray[np.float64]:
    hits = fuse(candidates, Fusion(), names, CUT)
    return ndcg(hits.positions[judged], [relevant[row] for row in judged])
