"""Exact and near duplicates, compared with their definition."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.core.errors import UsageError
from spectra_nsa.text.duplicates import alike, exact_duplicates, near_duplicates, overlap
from spectra_nsa.text.rows import RetrievalSet
from spectra_nsa.text.sources import load_source

texts = st.lists(st.lists(st.sampled_from("abcde"), max_size=12).map(" ".join), max_size=12)


def shingles(text, size=3):
    words = re.findall(r"\w+|[^\w\s]", text.casefold()) or [""]
    words += ["\0"] * (size - len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@given(texts, texts, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_near_duplicates_by_definition(a, b, threshold):
    expected = [any(len(x & y) >= threshold * len(x | y) - 1e-9 for y in map(shingles, b)) for x in map(shingles, a)]
    assert near_duplicates(a, b, threshold).tolist() == expected


def test_exact_duplicates():
    assert exact_duplicates(["A  b", "c"], ["a b\n"]).tolist() == [True, False]
    assert exact_duplicates(["a", "b", "A", "a"]).tolist() == [False, False, True, True]
    assert exact_duplicates([], []).tolist() == []


def test_bad_settings():
    for options in ({"threshold": 0}, {"threshold": 1.5}, {"size": 0}):
        with pytest.raises(UsageError):
            near_duplicates(["a"], ["b"], **options)


def test_speed_on_texts_with_many_common_shingles():
    generator = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(2_000)])
    rows = ["def f ( self ) : return " + " ".join(words[generator.zipf(1.3, 40) % 2_000]) for _ in range(6_000)]
    start = time.perf_counter()
    found = near_duplicates(rows[:5_500], rows[5_000:])
    assert found[5_000:].all()
    assert time.perf_counter() - start < 20


def test_overlap(write):
    train = load_source(
        write("a.jsonl", [{"anchor": "one two three four five", "positive": "x"}, {"anchor": "q", "positive": "y"}])
    )
    task = RetrievalSet(name="t", corpus={"d": "One two  three four five"}, queries={"q": "y"}, qrels={"q": {"d": 1}})
    found = overlap(train, task)
    assert (found["rows"], found["rows_affected"]) == (2, 2)
    assert found["columns"]["anchor"] == {"exact": 1, "near": 1, "example": "one two three four five"}


def test_within_one_list_the_first_of_each_group_is_not_marked() -> None:
    texts = ["a b c d e f g", "q r s", "a b c d e f g h", "z y x w", "Q  r s", "a b c d e f g h"]
    assert near_duplicates(texts, None, 0.6).tolist() == [False, False, True, False, True, True]
    assert near_duplicates(["single"], None).tolist() == [False]


@given(texts, st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_alike_agrees_with_the_definition(some, seed, threshold):
    a, b = np.random.default_rng(seed).integers(0, max(1, len(some)), (2, 20 if some else 0))
    sets = [shingles(text) for text in some]
    expected = [len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) - 1e-9 for i, j in zip(a, b, strict=True)]
    assert alike(some, a, b, threshold).tolist() == expected


def test_composed_and_decomposed_spellings_are_duplicates() -> None:
    assert exact_duplicates(["cafe\u0301 au lait"], ["Café  au lait"]).tolist() == [True]
    assert exact_duplicates(["café", "cafe\u0301", "cafe"]).tolist() == [False, True, False]


def test_near_duplicates_in_a_script_without_spaces() -> None:
    first, second = "机器学习是人工智能的一个重要分支", "机器学习是人工智能的一个重要分支吧"
    assert near_duplicates([first, "今天天气很好我们去公园散步"], [second]).tolist() == [True, False]
