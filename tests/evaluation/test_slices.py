from __future__ import annotations

import pytest

pytest.importorskip("Stemmer")

from spectra_nsa.evaluation.slices import RARE_COUNT, rare_term_slice

COMMON = {f"c{i}": "the way to open a file" for i in range(2_000)}
DOCUMENTS = COMMON | {
    "uidl": "return self._uidl(which) # POP3 uidl",
    "plain": "open a file and sorted sorting",
    "read": "def read_exactly(n): open",
}


def slice_of(*queries: tuple[str, str]) -> list[bool]:
    texts, answers = zip(*queries, strict=True)
    return list(rare_term_slice(texts, DOCUMENTS, [{answer: 1, "c0": 0} for answer in answers]))


def test_the_rare_word_must_be_in_a_relevant_document() -> None:
    assert slice_of(("pop3 uidl", "uidl"), ("pop3 uidl", "plain"), ("open a file", "plain")) == [True, False, False]


def test_words_are_stemmed_and_identifiers_split() -> None:
    assert slice_of(("it sorts", "plain"), ("exactly", "read"), ("read_exactly", "read")) == [True, True, True]


def test_a_grade_of_zero_is_not_relevant() -> None:
    assert list(rare_term_slice(["uidl"], DOCUMENTS, [{"uidl": 0, "plain": 1}])) == [False]


def test_rare_means_in_five_documents_or_in_a_two_hundredth() -> None:
    few = {f"d{i}": "rare" for i in range(RARE_COUNT)} | {"x": "other"}
    assert list(rare_term_slice(["rare"], few, [{"d0": 1}])) == [True]
    assert list(rare_term_slice(["rare"], few | {"y": "rare"}, [{"d0": 1}])) == [False]
    many = few | {"y": "rare"} | {f"c{i}": "other" for i in range(1_200)}
    assert list(rare_term_slice(["rare"], many, [{"d0": 1}])) == [True]
