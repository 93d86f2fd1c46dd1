"""Slices of queries: those that share a rare term, such as a name or a number, with their answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spectra_nsa.evaluation.bm25 import stemmed_words

if TYPE_CHECKING:
    import numpy as np

RARE_SHARE = 0.005
RARE_COUNT = 5


def rare_term_slice(
    queries: Sequence[str], documents: Mapping[str, str], relevant: Sequence[Mapping[str, int]]
) -> np.ndarray:
    """Returns (Q,) whether a query shares a rare word with one of its relevant documents.

    A word is rare if at most max(5, N / 200) of the N documents contain it. Words are those of BM25: stemmed, with
    identifiers and their parts. Because the rule looks at the relevant documents, the slice favors search by words, so
    report BM25 next to any figure on it.

    Args:
        queries: Q texts.
        documents: id → text.
        relevant: for each query, document id → grade.
    """
    import numpy as np

    words = dict(zip(documents, map(set, stemmed_words(documents.values())), strict=True))
    frequency = Counter(word for document in words.values() for word in document)
    most = max(RARE_COUNT, int(RARE_SHARE * len(documents)))
    in_slice = []
    for query_words, grades in zip(stemmed_words(queries), relevant, strict=True):
        rare = {word for word in query_words if 0 < frequency[word] <= most}
        in_slice.append(any(rare & words[document] for document, grade in grades.items() if grade > 0))
    return np.array(in_slice, dtype=bool)
