"""Fusion against formulas, and weights that are fitted only where they help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.index import fit_fusion as module
from spectra_nsa.index.fit_fusion import fit_fusion, ndcg
from spectra_nsa.index.hits import Hits, best_of
from spectra_nsa.index.hybrid import CONSTANT, Fusion, Hybrid, gather, standardized
from spectra_nsa.metrics.ranking import ranking_metrics


class Table:
    """A retriever whose queries are rows of a table of scores; a score of zero is no match."""

    def __init__(self, scores: np.ndarray) -> None:
        self.table = scores.astype(np.float32)

    def search(self, queries: Any, k: int) -> Hits:
        scores = np.where(self.table[queries] > 0, self.table[queries], -np.inf).astype(np.float32)
        return best_of(np.tile(np.arange(scores.shape[1]), (len(scores), 1)), scores, k)


class ScoringTable(Table):
    def scores(self, queries: Any, positions: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.table[queries], np.maximum(positions, 0), 1)


A = np.array([[5, 4, 3, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
B = np.array([[0, 9, 8, 7, 0, 0], [0, 0, 2, 2, 0, 0]])
QUERIES = {"a": np.arange(2), "b": np.arange(2)}


def test_reciprocal_ranks() -> None:
    hits = Hybrid({"a": Table(A), "b": Table(B)}).search(QUERIES, 4)
    rank = {0: (1, None), 1: (2, 1), 2: (3, 2), 3: (None, 3)}
    score = {d: sum(1 / (CONSTANT + r) for r in ranks if r) for d, ranks in rank.items()}
    order = sorted(score, key=lambda d: -score[d])
    assert hits.positions[0].tolist() == order
    np.testing.assert_allclose(hits.scores[0], [score[d] for d in order], rtol=1e-6)


def test_weighted_scores() -> None:
    fusion = Fusion(method="weighted", weights={"a": 0.75, "b": 0.25})
    hits = Hybrid({"a": ScoringTable(A), "b": ScoringTable(B)}, fusion).search(QUERIES, 6)
    for row, found in enumerate(([0, 1, 2, 3], [2, 3, 4, 5])):
        a, b = A[row, found].astype(float), B[row, found].astype(float)
        fused = 0.75 * (a - a.mean()) / a.std() + 0.25 * (b - b.mean()) / b.std()
        order = np.argsort(-fused, kind="stable")
        assert hits.positions[row, :4].tolist() == np.array(found)[order].tolist()
        np.testing.assert_allclose(hits.scores[row, :4], fused[order], rtol=1e-5)
        assert (hits.positions[row, 4:] == -1).all()


def test_a_document_that_a_cut_list_lacks() -> None:
    """With a depth of 2, `a` lists 0 and 1, `b` lists 1 and 2. Document 2 has its own score by `a` if `a` can tell."""
    cut = {"a": np.array([0]), "b": np.array([0])}
    exact, _ = gather({"a": ScoringTable(A), "b": ScoringTable(B)}, cut, 2)
    bounded, _ = gather({"a": Table(A), "b": Table(B)}, cut, 2)
    assert exact.positions.tolist() == bounded.positions.tolist() == [[0, 1, 2]]
    assert exact.scores[:, 0].tolist() == [[5, 4, 3], [0, 9, 8]]
    assert bounded.scores[:, 0].tolist() == [[5, 4, 4], [8, 9, 8]]
    whole, _ = gather({"a": Table(A), "b": Table(B)}, cut, 5)  # the lists end by themselves
    assert whole.scores[:, 0].tolist() == [[5, 4, 3, 0], [0, 9, 8, 7]]


def test_equal_scores_and_no_hits() -> None:
    fusion = Fusion(method="weighted", weights={"a": 0.5, "b": 0.5})
    flat = {"a": ScoringTable(np.ones((2, 3))), "b": ScoringTable(np.zeros((2, 3)))}
    candidates, _ = gather(flat, QUERIES, 3)
    assert (standardized(candidates) == 0).all()
    assert Hybrid(flat, fusion).search(QUERIES, 3).positions.tolist() == [[0, 1, 2]] * 2
    silent = {"a": ScoringTable(np.zeros((2, 3))), "b": ScoringTable(np.zeros((2, 3)))}
    for method in (fusion, Fusion()):
        assert (Hybrid(silent, method).search(QUERIES, 2).positions == -1).all()


def test_a_retriever_without_weight_is_not_asked() -> None:
    fusion = Fusion(method="weighted", weights={"a": 1.0, "b": 0.0})
    hits = Hybrid({"a": Table(A), "b": Table(B)}, fusion).search({"a": QUERIES["a"]}, 2)
    assert hits.positions[0].tolist() == [0, 1]
    with pytest.raises(SpectraError, match="queries of the retriever 'b' are missing"):
        Hybrid({"a": Table(A), "b": Table(B)}).search({"a": QUERIES["a"]}, 2)


def test_the_manifest_form() -> None:
    fusion = Fusion(method="weighted", weights={"a": 0.25}, depth=7, fit={"queries": 3})
    assert Fusion.parse(fusion.document(), ["a", "b"], "file") == fusion
    weightless = {"method": "weighted"}
    values = [None, {"method": "sum"}, {"depth": 0}, {"x": 1}, {"weights": 3}, weightless]
    for weights in ({"c": 1}, {"a": float("nan")}, {"a": 0}):
        values.append(weightless | {"weights": weights})
    for bad in values:
        with pytest.raises(SpectraError):
            Fusion.parse(bad, ["a", "b"], "file")


def tables(signal: float, other: float, count: int = 120) -> tuple[dict[str, ScoringTable], list[dict[int, float]]]:
    rng = np.random.default_rng(0)
    relevant = [{int(rng.integers(50)): 1.0} for _ in range(count)]
    found = {}
    for name, strength in (("a", signal), ("b", other)):
        scores = rng.normal(5, 1, (count, 50))
        for row, grades in enumerate(relevant):
            scores[row, next(iter(grades))] += strength
        found[name] = ScoringTable(np.maximum(scores, 0.01))
    return found, relevant


def test_fitted_weights_help_where_both_do() -> None:
    retrievers, relevant = tables(2.0, 1.2)
    queries = dict.fromkeys(retrievers, np.arange(120))
    fusion = fit_fusion(retrievers, queries, relevant)
    assert fusion.method == "weighted" and fusion.weights["a"] > fusion.weights["b"] > 0.1
    held = fusion.fit["held_out"]
    assert held["weighted"] > held["a"] > held["b"]
    hits = Hybrid(retrievers, fusion).search(queries, 10)
    assert ndcg(hits.positions, relevant).mean() == pytest.approx(held["weighted"], abs=0.03)


def test_ndcg_is_that_of_evaluation() -> None:
    positions = np.array([np.random.default_rng(row).permutation(30)[:12] for row in range(20)])
    relevant = [{row: 2.0, row + 1: 1.0, 400: 1.0} for row in range(20)]
    run = {str(row): {str(at): -float(rank) for rank, at in enumerate(found)} for row, found in enumerate(positions)}
    qrels = {str(row): {str(at): int(grade) for at, grade in one.items()} for row, one in enumerate(relevant)}
    wanted = ranking_metrics(run, qrels, ("ndcg@10",))["ndcg@10"]
    np.testing.assert_allclose(ndcg(positions, relevant), wanted, atol=1e-9)


def test_noise_gets_no_weight() -> None:
    retrievers, relevant = tables(2.0, 0.0)
    fusion = fit_fusion(retrievers, dict.fromkeys(retrievers, np.arange(120)), relevant)
    assert fusion.method == "weighted" and fusion.weights == {"a": 1.0} and fusion.fit["chosen"] == "a"


def test_too_few_queries() -> None:
    retrievers, relevant = tables(2.0, 1.0)
    relevant = relevant[:20] + [{}] * 100
    with pytest.raises(SpectraError, match="only 20 queries"):
        fit_fusion(retrievers, dict.fromkeys(retrievers, np.arange(120)), relevant)


def test_quality_on_the_grid_is_that_of_the_hits() -> None:
    retrievers, relevant = tables(1.0, 1.0, 30)
    relevant = [{**grades, 7: 0.5, 900: 1.0} for grades in relevant]
    queries = dict.fromkeys(retrievers, np.arange(30))
    candidates, _ = gather(retrievers, queries, 20)
    grid = np.array([[0.25, 0.75], [1.0, 0.0]])
    quality = module._grid_quality(candidates, grid, relevant, range(30))
    for weights, values in zip(grid, quality, strict=True):
        fusion = Fusion(method="weighted", weights={"a": weights[0], "b": weights[1]}, depth=20)
        hits = module.fuse(candidates, fusion, ["a", "b"], 10)
        np.testing.assert_allclose(ndcg(hits.positions, relevant), values, atol=1e-9)
