"""The part of an index that is searched by words: BM25 (Robertson et al. 1994) as Lucene and bm25s compute it.

    score(q, d) = Σ_w  n_q(w) · ln(1 + (N − n_w + ½) / (n_w + ½)) · f / (f + k₁ (1 − b + b |d| / L))

for the words w of the query, each n_q(w) times in it, f times in the document, and in n_w of N documents. Two things
differ from an index of all documents at once: L, the average length, is that of the documents with which the index was
built, and N and n_w count deleted documents until the index is compacted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import read_json
from spectra_nsa.index.arrays import damaged
from spectra_nsa.index.hits import Hits
from spectra_nsa.index.parts import Source
from spectra_nsa.index.sparse.postings import Postings, merge_postings, write_postings

NAME = "bm25"
_WORDS = "words.json"
Words = Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class _Query:
    """The distinct words of a query, ascending, and the weight of each."""

    words: list[str]
    weights: NDArray[np.float32]


class BM25Segment:
    """The posting lists of one segment, whose terms are its own words.

    Args:
        folder: the segment's folder.
        documents: number of documents.

    Raises:
        SpectraError: a file is damaged.
    """

    def __init__(self, folder: Path, documents: int) -> None:
        path = folder / _WORDS
        words = read_json(path)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise damaged(path, "it is not a list of words")
        self.words: list[str] = words
        self.postings = Postings(folder, NAME, documents, len(words), "float32")

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def search(self, queries: Sequence[_Query], k: int, dead: NDArray[np.bool_]) -> Hits:
        """Returns the k best documents of each query."""
        return self.postings.search(self._rows(queries), k, dead)

    def scores(self, queries: Sequence[_Query], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the scores (Q, C) of documents."""
        return self.postings.scores(self._rows(queries), positions)

    def check(self) -> None:
        """Checks every list."""
        self.postings.check()
        if len(self.numbers) != len(self.words):
            raise damaged(self.postings.files[0].with_name(_WORDS), "a word occurs twice")

    def _rows(self, queries: Sequence[_Query]) -> Any:
        from scipy.sparse import csr_matrix

        terms: list[int] = []
        weights: list[float] = []
        ends = [0]
        for query in queries:
            found = [(self.numbers[word], at) for at, word in enumerate(query.words) if word in self.numbers]
            terms += [term for term, _ in found]
            weights += [float(query.weights[at]) for _, at in found]
            ends.append(len(terms))
        shape = (len(queries), len(self.words))
        return csr_matrix((np.array(weights, dtype=np.float32), np.array(terms, dtype=np.int32), ends), shape=shape)


class BM25Part:
    """Posting lists of words.

    Args:
        k1: term frequency saturation.
        b: length normalization, from 0 (none) to 1 (full).
        average_length: words per document; ``None`` until the first documents are added.
    """

    def __init__(self, k1: float = 1.5, b: float = 0.75, average_length: float | None = None) -> None:
        self.k1, self.b = float(k1), float(b)
        self.average_length = None if average_length is None else float(average_length)

    def settings(self) -> dict[str, Any]:
        """Returns its kind and settings."""
        return {"kind": "bm25", "k1": self.k1, "b": self.b, "average_length": self.average_length}

    def count(self, rows: Words) -> int:
        """Returns the number of documents. Raises `SpectraError` if they are texts instead of lists of words."""
        if any(isinstance(words, str) for words in rows):
            raise SpectraError("BM25 takes the words of each text as a list, not the text.")
        return len(rows)

    def write(self, folder: Path, rows: Words) -> None:
        """Writes the words of a new segment."""
        from scipy.sparse import csr_matrix

        lengths = np.array([len(words) for words in rows], dtype=np.float64)
        if self.average_length is None and lengths.sum():
            self.average_length = float(lengths.mean())
        vocabulary = sorted({word for words in rows for word in words})
        numbers = {word: number for number, word in enumerate(vocabulary)}
        counts = [Counter(map(numbers.__getitem__, words)) for words in rows]
        ends = np.cumsum([0, *map(len, counts)])
        terms = np.fromiter((term for row in counts for term in row), dtype=np.int32, count=ends[-1])
        f = np.fromiter((value for row in counts for value in row.values()), dtype=np.float64, count=ends[-1])
        relative = np.repeat(lengths / (self.average_length or 1.0), np.diff(ends))
        impacts = (f / (f + self.k1 * (1 - self.b + self.b * relative))).astype(np.float32)
        matrix = csr_matrix((impacts, terms, ends), shape=(len(rows), len(vocabulary)))
        matrix.sort_indices()
        _write_words(folder, vocabulary)
        write_postings(folder, NAME, matrix, "float32")

    def merge(self, folder: Path, sources: Sequence[Source]) -> None:
        """Writes the kept documents of other segments. Words that no document has any more leave the vocabulary."""
        opened = [self.open(source.folder, source.documents) for source in sources]
        used = []
        for source, segment in zip(sources, opened, strict=True):
            kept = np.zeros(source.documents + 1, dtype=bool)
            kept[source.kept] = True
            sums = np.concatenate([[0], np.cumsum(kept[segment.postings.documents])])
            used.append(np.diff(sums[segment.postings.starts]) > 0)
        vocabulary = sorted(
            {segment.words[n] for segment, alive in zip(opened, used, strict=True) for n in np.flatnonzero(alive)}
        )
        numbers = {word: number for number, word in enumerate(vocabulary)}
        spare = len(vocabulary)  # where words go that are not used: their lists are empty
        maps = [np.array([numbers.get(word, spare) for word in s.words], dtype=np.int64) for s in opened]
        _write_words(folder, vocabulary)
        parts = [(s.postings, source.kept, m) for s, source, m in zip(opened, sources, maps, strict=True)]
        merge_postings(folder, NAME, parts, len(vocabulary), "float32")

    def open(self, folder: Path, documents: int) -> BM25Segment:
        """Opens the lists of a segment."""
        return BM25Segment(folder, documents)

    def prepare(self, queries: Words, segments: Sequence[BM25Segment]) -> list[_Query]:
        """Returns the words of each query with their weights, by their frequency in all segments."""
        self.count(queries)
        total = sum(segment.postings.count for segment in segments)
        prepared = []
        for words in queries:
            repeated = Counter(words)
            names = sorted(repeated)
            holding = np.zeros(len(names))
            for segment in segments:
                starts = segment.postings.starts
                found = [segment.numbers.get(name, -1) for name in names]
                holding += [0 if n < 0 else int(starts[n + 1] - starts[n]) for n in found]
            rarity = np.log1p((total - holding + 0.5) / (holding + 0.5))
            times = np.array([repeated[name] for name in names], dtype=np.float64)
            prepared.append(_Query(words=names, weights=(times * rarity).astype(np.float32)))
        return prepared

    def query_count(self, prepared: Sequence[_Query]) -> tuple[int, int]:
        """Returns the number of queries and of those without a word."""
        return len(prepared), sum(not query.words for query in prepared)


def _write_words(folder: Path, words: list[str]) -> None:
    (folder / _WORDS).write_text(json.dumps(words), encoding="utf-8")
