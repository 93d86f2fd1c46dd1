"""The pairs to mine, as numbers: distinct anchors, distinct documents, and which belong together.

The texts stay in their datasets and are read when they are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.strings import comparable
from spectra_nsa.text.rows import TextSet, kind_name

if TYPE_CHECKING:
    from datasets import Dataset

Ints = NDArray[np.int64]
_BATCH_ROWS = 1_000  # rows that are Python strings at the same time
_COLUMN = {"pairs": "positive", "triplets": "positive", "texts": "text", "labelled": "text"}


class DistinctTexts:
    """The distinct texts of one or more datasets, in order of first appearance.

    Texts that differ only in case, white space or the composition of accents count as one (`core.strings.comparable`);
    the first one is used.

    Args:
        columns: the datasets, each with the column of its texts.
        lookup: further datasets whose texts are only looked up.

    Attributes:
        numbers: for each dataset, the number of the text of each row.
        found: for each dataset of `lookup`, the number of the text of each row; −1 if it is not one of the texts.
        row_numbers: the row of each distinct text, counted through all datasets.
    """

    def __init__(self, *columns: tuple[Dataset, str], lookup: Sequence[tuple[Dataset, str]] = ()) -> None:
        self.columns = columns
        self._known: dict[bytes, int] = {}
        self._row_numbers: list[int] = []
        self._digest = hashlib.sha256()
        self.numbers = [self._read(index) for index in range(len(columns))]
        self.found = [
            np.fromiter((self._known.get(_key(text), -1) for text in _column(rows, name)), np.int64, len(rows))
            for rows, name in lookup
        ]
        self._known = {}
        self.row_numbers: Ints = np.array(self._row_numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.row_numbers)

    @property
    def digest(self) -> str:
        """The SHA-256 of the texts, in order."""
        return self._digest.hexdigest()

    def get(self, numbers: Sequence[int] | Ints) -> list[str]:
        """Returns the texts with these numbers."""
        rows_wanted = self.row_numbers[np.asarray(numbers, dtype=np.int64)]
        texts: list[str] = [""] * len(rows_wanted)
        start = 0
        for rows, name in self.columns:
            inside = np.flatnonzero((rows_wanted >= start) & (rows_wanted < start + len(rows)))
            if len(inside):
                distinct, inverse = np.unique(rows_wanted[inside] - start, return_inverse=True)
                values = rows.select_columns([name])[distinct.tolist()][name]
                for i, j in zip(inside.tolist(), inverse.tolist(), strict=True):
                    texts[i] = values[j]
            start += len(rows)
        return texts

    def _read(self, index: int) -> Ints:
        """Returns the number of the text of each row of one dataset."""
        start = sum(len(rows) for rows, _ in self.columns[:index])
        rows, name = self.columns[index]
        numbers = np.empty(len(rows), dtype=np.int64)
        for i, text in enumerate(_column(rows, name)):
            number = self._known.setdefault(_key(text), len(self._row_numbers))
            if number == len(self._row_numbers):
                self._row_numbers.append(start + i)
                data = text.encode()
                self._digest.update(len(data).to_bytes(8, "little") + data)
            numbers[i] = number
        return numbers


@dataclass(frozen=True)
class MiningPool:
    """The pairs to mine and the candidates.

    Attributes:
        rows: the pairs of the source.
        queries: the distinct anchors.
        documents: the candidates: the distinct positives, then the texts of the corpus.
        query_R, document_R: the numbers of the anchor and the positive of each row.
        first_R: whether a row is the first with its anchor and positive.
        own_query_P, own_document_P: the numbers of the distinct pairs, ordered by anchor: those of the rows, and other
            known right answers. None of them becomes a negative, and all count as positives of their anchor.
    """

    rows: Dataset
    queries: DistinctTexts
    documents: DistinctTexts
    query_R: Ints
    document_R: Ints
    first_R: NDArray[np.bool_]
    own_query_P: Ints
    own_document_P: Ints

    def own(self, start: int, stop: int) -> slice:
        """Returns the slice of the distinct pairs of the queries start … stop − 1."""
        low, high = np.searchsorted(self.own_query_P, [start, stop])
        return slice(int(low), int(high))

    def pair_R(self) -> Ints:
        """Returns the number of the distinct pair of each row."""
        size = len(self.documents)
        return np.searchsorted(self.own_query_P * size + self.own_document_P, self.query_R * size + self.document_R)


def build_pool(source: TextSet, corpus: TextSet | None, answers: Sequence[Dataset] = ()) -> MiningPool:
    """Numbers the texts of pairs, and of a corpus of further candidates.

    Args:
        source: the pairs.
        corpus: further candidates; ``None`` for none. If it consists of pairs, they are known answers too.
        answers: further known answers, which are not mined: columns `anchor` and `positive`.

    Raises:
        SpectraError: the source does not consist of pairs, the corpus has no texts to use, or there is only one
            document.
    """
    if source.kind not in ("pairs", "triplets"):
        raise SpectraError(
            f"{source.name} contains {kind_name(source.kind)}, but mining needs pairs. Map the columns with "
            "--columns anchor=…,positive=…"
        )
    if corpus is not None and corpus.kind not in _COLUMN:
        raise SpectraError(
            f"--corpus {corpus.name} contains {kind_name(corpus.kind)}; expected texts, or pairs whose positives are "
            "used."
        )
    further: list[tuple[Any, str]] = [] if corpus is None else [(corpus.dataset, _COLUMN[corpus.kind])]
    if corpus is not None and _COLUMN[corpus.kind] == "positive":
        answers = [*answers, corpus.dataset]
    queries = DistinctTexts((source.dataset, "anchor"), lookup=[(rows, "anchor") for rows in answers])
    documents = DistinctTexts((source.dataset, "positive"), *further, lookup=[(rows, "positive") for rows in answers])
    if len(documents) < 2:
        raise SpectraError(f"{source.name} has only one document, so there are no negatives to mine. Add a --corpus.")
    query_R, document_R = queries.numbers[0], documents.numbers[0]
    keys, first = np.unique(query_R * len(documents) + document_R, return_index=True)
    first_R = np.zeros(len(query_R), dtype=bool)
    first_R[first] = True
    for query, document in zip(queries.found, documents.found, strict=True):
        known = (query >= 0) & (document >= 0)
        keys = np.union1d(keys, query[known] * len(documents) + document[known])
    own_query_P, own_document_P = np.divmod(keys, len(documents))
    return MiningPool(source.dataset, queries, documents, query_R, document_R, first_R, own_query_P, own_document_P)


def _key(text: str) -> bytes:
    return hashlib.blake2b(comparable(text).encode(), digest_size=16).digest()


def _column(rows: Dataset, name: str) -> Iterator[str]:
    for table in rows.select_columns([name]).with_format("arrow").iter(_BATCH_ROWS):
        yield from table.column(0).to_pylist()
