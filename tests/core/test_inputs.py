"""Texts come in many containers; what is no text is named by its index."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.inputs import text_list

TEXTS = ["open a file", "größer", ""]


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS,
        tuple(TEXTS),
        (text for text in TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS, index=[3, 7, 40]),
        Dataset.from_dict({"text": TEXTS})["text"],
        dict.fromkeys(TEXTS).keys(),
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_any_ordered_container_of_texts_is_read(texts: Any) -> None:
    if isinstance(texts, type({}.keys())):
        texts = list(texts)
    found = text_list(texts)
    assert found == TEXTS and {type(text) for text in found} == {str}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("open a file", "candidates is a single text"),
        (None, "candidates is of type NoneType"),
        (b"open", "candidates is of type bytes"),
        ({"a", "b"}, "candidates is of type set"),
        ({"a": 1}, "candidates is of type dict"),
        (np.array("a"), "candidates is of type ndarray"),
        (pd.DataFrame({"text": TEXTS}), "candidates is a table"),
        (["a", None], r"candidates\[1\] is of type NoneType"),
        (pd.Series(["a", "b", None], index=[3, 7, 40]), r"candidates\[2\] is missing"),
        (["a", float("nan")], r"candidates\[1\] is missing \(NaN\)"),
        ([("a", "b")], r"candidates\[0\] is of type tuple"),
        (["a", "b", "c\ud800"], r"candidates\[2\] holds half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_named(texts: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        text_list(texts, "candidates")
