"""Pairs as numbers: distinct anchors, distinct documents, and which belong together. The texts stay where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text.duplicates import normalised
from spectra_nsa.text.rows import TextSet

if TYPE_CHECKING:
    from datasets import Dataset

Ints = NDArray[np.int64]
_AT_A_TIME = 1_000  # rows that are Python strings at once
_COLUMN = {"pairs": "positive", "triplets": "positive", "texts": "text", "labelled": "text"}


class Texts:
    """Distinct texts of one or two data sets, in the order of their first appearance.

    Args:
        columns: the data sets, each with the column that holds the texts.
    """

    def __init__(self, *columns: tuple[Dataset, str]) -> None:
        self.columns = columns
        self._known: dict[bytes, int] = {}
        self._places: list[int] = []
        self._digest = hashlib.sha256()
        self.numbers = [self._read(which) for which in range(len(columns))]
        self._known = {}
        self.places: Ints = np.array(self._places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def digest(self) -> str:
        """SHA-256 of the texts, in order."""
        return self._digest.hexdigest()

    def get(self, numbers: Sequence[int] | Ints) -> list[str]:
        """The texts with these numbers."""
        places = self.places[np.asarray(numbers, dtype=np.int64)]
        found: list[str] = [""] * len(places)
        start = 0
        for rows, name in self.columns:
            inside = np.flatnonzero((places >= start) & (places < start + len(rows)))
            if len(inside):
                distinct, back = np.unique(places[inside] - start, return_inverse=True)
                texts = rows.select_columns([name])[distinct.tolist()][name]
                for at, one in zip(inside.tolist(), back.tolist(), strict=True):
                    found[at] = texts[one]
            start += len(rows)
        return found

    def _read(self, which: int) -> Ints:
        """The number of each row's text. Texts are the same up to white space and case; the first one stands."""
        start = sum(len(rows) for rows, _ in self.columns[:which])
        rows, name = self.columns[which]
        numbers = np.empty(len(rows), dtype=np.int64)
        for at, text in enumerate(_column(rows, name)):
            key = hashlib.blake2b(normalised(text).encode(), digest_size=16).digest()
            number = self._known.setdefault(key, len(self._places))
            if number == len(self._places):
                self._places.append(start + at)
                data = text.encode()
                self._digest.update(len(data).to_bytes(8, "little") + data)
            numbers[at] = number
        return numbers


@dataclass(frozen=True)
class Pool:
    """What is mined.

    Attributes:
        rows: the source's pairs.
        queries: the distinct anchors.
        documents: the distinct positives, then what a corpus adds: the candidates.
        query_R, document_R: each row's anchor and positive by number.
        first_R: whether a row is the first with its anchor and positive.
        own_query_P, own_document_P: the distinct pairs, ordered by anchor.
    """

    rows: Dataset
    queries: Texts
    documents: Texts
    query_R: Ints
    document_R: Ints
    first_R: NDArray[np.bool_]
    own_query_P: Ints
    own_document_P: Ints

    def own(self, start: int, stop: int) -> slice:
        """The distinct pairs of the queries start … stop − 1."""
        low, high = np.searchsorted(self.own_query_P, [start, stop])
        return slice(int(low), int(high))

    def pair_R(self) -> Ints:
        """Which of the distinct pairs each row is."""
        size = len(self.documents)
        return np.searchsorted(self.own_query_P * size + self.own_document_P, self.query_R * size + self.document_R)


def build_pool(source: TextSet, corpus: TextSet | None) -> Pool:
    """Numbers the texts of pairs, and of a corpus of further candidates.

    Raises:
        SpectraError: the source is not made of pairs, or there is one document only.
    """
    if source.kind not in ("pairs", "triplets"):
        raise SpectraError(
            f"{source.name} holds {source.kind}; mining needs pairs. Name the columns: --columns anchor=…,positive=…"
        )
    if corpus is not None and corpus.kind not in _COLUMN:
        raise SpectraError(f"--corpus {corpus.name} holds {corpus.kind}; it takes texts, or pairs for their positives.")
    further: list[tuple[Any, str]] = [] if corpus is None else [(corpus.dataset, _COLUMN[corpus.kind])]
    queries = Texts((source.dataset, "anchor"))
    documents = Texts((source.dataset, "positive"), *further)
    if len(documents) < 2:
        raise SpectraError(f"{source.name} has one document: there is no other to be a negative. Add a --corpus.")
    query_R, document_R = queries.numbers[0], documents.numbers[0]
    keys, first = np.unique(query_R * len(documents) + document_R, return_index=True)
    first_R = np.zeros(len(query_R), dtype=bool)
    first_R[first] = True
    own_query_P, own_document_P = np.divmod(keys, len(documents))
    return Pool(source.dataset, queries, documents, query_R, document_R, first_R, own_query_P, own_document_P)


def _column(rows: Dataset, name: str) -> Iterator[str]:
    for table in rows.select_columns([name]).with_format("arrow").iter(_AT_A_TIME):
        yield from table.column(0).to_pylist()
