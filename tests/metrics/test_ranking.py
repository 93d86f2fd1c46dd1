from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from spectra_nsa.core.errors import UsageError
from spectra_nsa.metrics.ranking import RANKING_METRICS, judged_queries, ranking_metrics

# q1 has its two relevant documents at ranks 2 and 4 of 4, q2 its only one at rank 1; q3 has no results.
RUN = {"q1": {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}, "q2": {"b": 1.0, "a": 0.5}, "q3": {}}
QRELS = {"q1": {"b": 1, "d": 1, "a": 0}, "q2": {"b": 1}, "q3": {"a": 1}, "unjudged": {"a": 0}}


def test_a_fraction_is_no_grade() -> None:
    with pytest.raises(UsageError, match=r"the grade 0\.9 is not a whole number"):
        ranking_metrics({"q": {"a": 1.0}}, {"q": {"a": 0.9, "b": 2}})


def test_worked_example() -> None:
    got = ranking_metrics(RUN, QRELS)
    assert judged_queries(QRELS) == ["q1", "q2", "q3"]
    ndcg = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    expected = {
        "ndcg@10": [ndcg, 1, 0],
        "mrr": [0.5, 1, 0],
        "mrr@10": [0.5, 1, 0],
        "recall@1": [0, 1, 0],
        "recall@5": [1, 1, 0],
        "recall@10": [1, 1, 0],
        "recall@100": [1, 1, 0],
        "precision@1": [0, 1, 0],
        "precision@10": [0.2, 0.1, 0],
        "map": [(1 / 2 + 2 / 4) / 2, 1, 0],
    }
    assert set(got) == set(RANKING_METRICS)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, atol=1e-6, err_msg=name)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=10).filter(any), st.randoms(use_true_random=False))
def test_ndcg_agrees_with_sklearn(grades: list[int], random: object) -> None:
    scores = list(range(len(grades)))
    random.shuffle(scores)  # type: ignore[attr-defined]
    run = {"q": {f"d{i}": float(score) for i, score in enumerate(scores)}}
    qrels = {"q": {f"d{i}": grade for i, grade in enumerate(grades)}}
    got = ranking_metrics(run, qrels, ["ndcg@10"])["ndcg@10"][0]
    assert got == pytest.approx(ndcg_score([grades], [scores], k=10), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2)), min_size=1, max_size=5), st.integers(0, 2))
def test_ties_give_the_mean_over_all_orders(documents: list[tuple[int, int]], missing: int) -> None:
    scores = {f"d{i}": float(score) for i, (score, _) in enumerate(documents)}
    grades = {f"d{i}": grade for i, (_, grade) in enumerate(documents)} | {f"lost{i}": 1 for i in range(missing)}
    assume(any(grade > 0 for grade in grades.values()))
    got = ranking_metrics({"q": scores}, {"q": grades})
    every: dict[str, list[float]] = {name: [] for name in RANKING_METRICS}
    for order in itertools.permutations(scores):
        ranked = sorted(order, key=lambda document: -scores[document])
        strict = {document: float(-rank) for rank, document in enumerate(ranked)}
        for name, value in ranking_metrics({"q": strict}, {"q": grades}).items():
            every[name].append(value[0])
    for name, values in every.items():
        assert got[name][0] == pytest.approx(np.mean(values), abs=1e-6), name


def test_a_constant_system_gets_the_figure_of_chance_whatever_the_ids() -> None:
    for relevant in ("d1", "d5"):
        got = ranking_metrics({"q": dict.fromkeys(("d1", "d2", "d3", "d4", "d5"), 0.5)}, {"q": {relevant: 1}})
        assert got["mrr"][0] == pytest.approx(sum(1 / rank for rank in range(1, 6)) / 5)
        assert got["recall@1"][0] == pytest.approx(1 / 5)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(score: float) -> None:
    with pytest.raises(UsageError, match=r"query 'q' has a document with the score"):
        ranking_metrics({"q": {"a": score, "b": 0.1}}, {"q": {"a": 1}})


def test_scores_closer_than_single_precision_keep_their_order() -> None:
    assert ranking_metrics({"q": {"z": 1 + 1e-12, "a": 1.0}}, {"q": {"z": 1}}, ["mrr"])["mrr"][0] == 1


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'ndcg@10'"):
        ranking_metrics(RUN, QRELS, ["ndgc@10"])


def test_no_judgments_give_empty_arrays() -> None:
    assert all(len(values) == 0 for values in ranking_metrics(RUN, {}).values())


def test_four_thousand_queries_take_seconds() -> None:
    rng = np.random.default_rng(0)
    run = {
        str(q): dict(zip(map(str, rng.choice(4000, 100, replace=False)), rng.random(100).tolist(), strict=True))
        for q in range(4000)
    }
    start = time.perf_counter()
    ranking_metrics(run, {query: {query: 1} for query in run})
    assert time.perf_counter() - start < 20
