"""What routing follows: figures with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from spectra_nsa.metrics import routing as measure


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_load_of_even_and_collapsed_choices() -> None:
    even = measure.load_figures(measure.load_shares(np.arange(8)[:, None] % 4, 4))
    assert even == {"max_violation": 0.0, "load_entropy": 1.0, "effective_experts": 4.0}
    collapsed = measure.load_figures(measure.load_shares(np.zeros((8, 1), int), 4))
    assert collapsed["max_violation"] == 3 and collapsed["effective_experts"] == 1


def test_coactivation_counts_all_pairs_not_only_neighbors_in_rank() -> None:
    chosen = np.array([[0, 1, 2], [0, 3, 1]])
    together = measure.coactivation(chosen, 4)
    assert together[0].tolist() == [0, 1, 0.5, 0.5]
    assert together[2].tolist() == [1, 1, 0, 0]  # 0 and 2 are not neighbors in the first choice


def test_saturation_is_the_shared_part_of_the_choices() -> None:
    assert measure.saturation(np.array([[0, 1], [2, 3]]), np.array([[1, 0], [3, 1]])) == 0.75


def test_experts_that_are_the_domain_tell_all_of_it(generator: np.random.Generator) -> None:
    domain = generator.integers(4, size=4000)
    assert measure.shared_information(domain, domain, of="group") == pytest.approx(1.0, abs=1e-3)
    unrelated = generator.integers(4, size=4000)
    assert abs(measure.shared_information(unrelated, domain, of="group")) < 2e-3


def test_a_router_by_token_tells_nothing_of_the_domain_beyond_the_token(generator: np.random.Generator) -> None:
    domain = generator.integers(2, size=20_000)
    token = 10 * domain + generator.integers(20, size=20_000)  # half of the ids occur in both domains
    expert = token // 6
    shuffles = measure.shuffles_of(len(token), 10, seed=0, within=token)
    assert measure.shared_information(expert, token, of="experts") == pytest.approx(1, abs=0.01)
    assert measure.shared_information(expert, domain, of="group") > 0.005
    beyond = measure.against_chance(lambda e: measure.information_beyond(e, domain, token), expert, shuffles)
    assert abs(beyond.value) < 1e-6 and abs(beyond.null) < 1e-6
    aware = measure.against_chance(
        lambda e: measure.information_beyond(e, domain, token), (expert + domain) % 5, shuffles
    )
    assert aware.value > 0.95 and aware.value > aware.null_95 + 0.5


def test_the_correction_removes_the_bias_of_small_samples(generator: np.random.Generator) -> None:
    groups, experts = generator.integers(50, size=2000), generator.integers(8, size=2000)
    plain = 0.0
    for values, sign in (((groups,), 1), ((experts,), 1), ((groups, experts), -1)):
        codes = values[0] * 100 + (values[1] if len(values) > 1 else 0)
        share = np.unique(codes, return_counts=True)[1] / len(codes)
        plain -= sign * (share * np.log2(share)).sum()
    corrected = measure.shared_information(experts, groups, of="experts") * measure.entropy(experts)
    assert plain > 0.1 and abs(corrected) < 0.03


def test_shuffles_within_labels_keep_the_labels(generator: np.random.Generator) -> None:
    labels = generator.integers(5, size=300)
    for order in measure.shuffles_of(300, 3, seed=1, within=labels):
        assert sorted(order) == list(range(300)) and (labels[order] == labels).all()
        assert (order != np.arange(300)).any()


def test_vocabulary_counts_frequent_ids_only() -> None:
    ids = np.array([1] * 20 + [2] * 10 + [3] * 2)
    first = np.array([0] * 20 + [0] * 5 + [1] * 5 + [1, 1])
    assert measure.vocabulary(first, ids, 2) == 0.75
    assert measure.vocabulary(first, ids, 2, by_occurrence=True) == pytest.approx((20 + 0.5 * 10) / 30)
    assert np.isnan(measure.vocabulary(first[-2:], ids[-2:], 2))


def test_locality_does_not_cross_texts() -> None:
    assert measure.locality(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])) == 1
    assert measure.locality(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])) == 0


def test_agreement_of_pairs() -> None:
    left, right = np.array([[1.0, 0], [0.5, 0.5]]), np.array([[0.0, 1], [0.5, 0.5]])
    assert measure.agreement(left, right).tolist() == [0, 1]
