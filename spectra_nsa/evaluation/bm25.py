"""BM25, the lexical baseline, with a word split for prose in any script and for code."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import missing_extra
from spectra_nsa.core.strings import words
from spectra_nsa.evaluation.systems import Ranking

if TYPE_CHECKING:
    import numpy as np

SPLIT_RULES = 2  # part of the cache keys of BM25's results; increase it when texts are split differently


def split_identifiers(text: str) -> list[str]:
    """Splits a text into case-folded words (`core.strings.words`). An identifier yields itself and its parts.

    ``parseHTTPRequest2`` → ``parsehttprequest2 parse http request 2``; ``os.path_sep`` → ``os path_sep path sep``.
    Keeping the full identifier besides its parts is better on code search (nDCG@10 0.393 instead of 0.387 on the CoSQA
    development queries) and makes no difference on prose.
    """
    found: list[str] = []
    for word in words(unicodedata.normalize("NFC", text)):
        parts = [part.casefold() for part in _parts().findall(word)]
        if len(parts) > 1:
            found.append(word.casefold())
        found.extend(parts)
    return found


@functools.cache
def _parts() -> Any:
    """Returns the pattern of an identifier's parts. Only Latin letters mark parts by their case."""
    import regex

    upper, lower = (rf"(?:[\p{{Latin}}&&\p{{{case}}}]\p{{M}}*)" for case in ("Lu", "Ll"))
    other = r"[\w--[\p{Latin}&&[\p{Lu}\p{Ll}]]--[\d_]]"
    return regex.compile(rf"(?V1){upper}+(?!{lower})|{upper}?{lower}+|\d+|{other}+")


def stemmed_words(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yields the stemmed words of each text, as BM25 compares them.

    Raises:
        SpectraError: PyStemmer is not installed.
    """
    try:
        import Stemmer
    except ImportError as error:
        raise missing_extra("bm25s with PyStemmer", "eval") from error
    stem: Any = Stemmer.Stemmer("english").stemWords
    for text in texts:
        yield stem(split_identifiers(text))


class BM25System:
    """BM25 (bm25s) over stemmed words. Stop words stay, because `in`, `not` and `is` are meaningful in code."""

    def __init__(self, name: str = "bm25", *, k1: float = 1.5, b: float = 0.75) -> None:
        """Initializes the system.

        Args:
            name: its name in the results.
            k1: term frequency saturation: the larger, the more a repeated word counts.
            b: length normalization, from 0 (none) to 1 (full).

        Raises:
            SpectraError: bm25s or PyStemmer is not installed.
        """
        try:
            import bm25s  # noqa: F401
            import Stemmer  # noqa: F401
        except ImportError as error:
            raise missing_extra("bm25s with PyStemmer", "eval") from error
        self.name = name
        self._k1, self._b = k1, b
        self._words: list[str] = []  # of the rows computed last

    def sparse_rows(self, queries: Iterable[str], documents: Iterable[str]) -> tuple[Any, Any]:
        """Returns queries and documents as scipy CSR rows whose inner products are the BM25 scores.

        A document's row holds bm25s's weight of each of its words; a query's row holds the count of each word.
        """
        import bm25s
        import numpy as np
        from scipy.sparse import csc_matrix, csr_matrix

        vocabulary: dict[str, int] = {}
        ids = [[vocabulary.setdefault(word, len(vocabulary)) for word in words] for words in stemmed_words(documents)]
        query_ids = [[vocabulary[word] for word in words if word in vocabulary] for words in stemmed_words(queries)]
        ends = np.cumsum([0, *map(len, query_ids)])
        flat = np.fromiter((number for row in query_ids for number in row), dtype=np.int32, count=ends[-1])
        self._words = list(vocabulary)
        shape = len(query_ids), len(vocabulary)
        rows = csr_matrix((np.ones(len(flat), dtype=np.float32), flat, ends), shape=shape)
        rows.sum_duplicates()
        if not vocabulary:
            return rows, csr_matrix((len(ids), 0), dtype=np.float32)
        index = bm25s.BM25(k1=self._k1, b=self._b)
        index.index((ids, dict(vocabulary)), show_progress=False)
        scores = index.scores
        width = len(scores["indptr"]) - 1
        weights = csc_matrix((scores["data"], scores["indices"], scores["indptr"]), shape=(len(ids), width)).tocsr()
        return rows, weights[:, : len(vocabulary)]

    def term_names(self, terms: Sequence[int]) -> list[str]:
        """Returns the stemmed words of some dimensions of the rows that `sparse_rows` returned last."""
        return [self._words[term] for term in terms]

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        """Returns the k best documents of each query; a document that shares no word with the query is no hit."""
        import bm25s
        import numpy as np

        k = min(k, len(documents))
        corpus = list(stemmed_words(documents))
        if not k or not len(queries) or not any(corpus):
            shape = (len(queries), k)
            return Ranking(index=np.full(shape, -1), scores=np.full(shape, -np.inf, dtype=np.float32))
        index = bm25s.BM25(k1=self._k1, b=self._b)
        index.index(corpus, show_progress=False)
        documents_QK, scores_QK = index.retrieve(list(stemmed_words(queries)), k=k, show_progress=False)
        return _without_zeros(np.asarray(documents_QK, dtype=np.int64), np.asarray(scores_QK, dtype=np.float32))


def _without_zeros(index: np.ndarray, scores: np.ndarray) -> Ranking:
    import numpy as np

    hit = scores > 0
    return Ranking(index=np.where(hit, index, -1), scores=np.where(hit, scores, np.float32(-np.inf)))
