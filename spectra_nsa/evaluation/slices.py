"""Queries whose answer hangs on a rare term: a name, a number, an identifier."""

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
    """(Q,) True where a query shares with a relevant document a word that few documents of the collection hold.

    Words are those BM25 reads: stemmed, an identifier beside its parts. Few = at most max(5, N / 200) of N documents.
    Since the rule looks at the relevant documents, the slice suits search by words: BM25 belongs beside any figure of
    it.

    Args:
        queries: Q texts.
        documents: id → text.
        relevant: for each query document → grade.
    """
    import numpy as np

    words = dict(zip(documents, map(set, stemmed_words(documents.values())), strict=True))
    held = Counter(word for each in words.values() for word in each)
    most = max(RARE_COUNT, int(RARE_SHARE * len(documents)))
    found = []
    for asked, grades in zip(stemmed_words(queries), relevant, strict=True):
        rare = {word for word in asked if 0 < held[word] <= most}
        found.append(any(rare & words[document] for document, grade in grades.items() if grade > 0))
    return np.array(found, dtype=bool)
