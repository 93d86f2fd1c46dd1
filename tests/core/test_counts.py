"""Counts as words."""

from __future__ import annotations

import pytest

from spectra_nsa.core.counts import counted


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [
        (0, "row", "0 rows"),
        (1, "row", "1 row"),
        (2, "training row", "2 training rows"),
        (1234, "query", "1,234 queries"),
        (3, "key", "3 keys"),
        (2, "batch", "2 batches"),
        (2, "process", "2 processes"),
    ],
)
def test_the_noun_follows_the_number(number: int, noun: str, words: str) -> None:
    assert counted(number, noun) == words
