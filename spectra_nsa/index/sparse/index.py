"""A sparse index: documents found by exact inner products of sparse vectors.

index = SparseIndex.build("faq.index", rows, ids, texts=texts)
hits = SparseIndex.load("faq.index").search(query_rows, 10)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import expand_user, read_json
from spectra_nsa.index.collection import Index, new_index
from spectra_nsa.index.hits import Hits
from spectra_nsa.index.records import Record
from spectra_nsa.index.sparse.exchange import VOCABULARY, SparseRows, read_rows, write_rows
from spectra_nsa.index.sparse.part import NAME, PostingsPart, sparse_rows
from spectra_nsa.index.sparse.postings import Postings
from spectra_nsa.index.sparse.pruning import Pruning

KIND = "sparse"


class SparseIndex:
    """An index folder of kind ``"sparse"``. `build`, `load` and `read` make one.

    Attributes:
        index: the documents and segments.
    """

    def __init__(self, index: Index) -> None:
        if index.commit.kind != KIND or not isinstance(index.parts.get(NAME), PostingsPart):
            raise SpectraError(f"{index.folder} is an index of kind {index.commit.kind}, not {KIND}.")
        self.index = index

    @classmethod
    def build(
        cls,
        folder: str | Path,
        rows: Any,
        ids: Sequence[str],
        *,
        texts: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        vocabulary: Sequence[str] | None = None,
        model: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        impacts: str = "float32",
        pruning: Pruning | None = None,
    ) -> SparseIndex:
        """Builds an index, in place of an older one.

        Args:
            folder: where to.
            rows: scipy CSR rows (N, V), not negative.
            ids: N unique names.
            texts: N texts to show for hits; ``None`` stores none.
            metadata: a JSON object for each document, or ``None``.
            vocabulary: the V terms; ``None`` if they are not known.
            model: what made the rows: ``name`` and ``sha256``, for those who encode queries.
            files: further files by name, such as a query side.
            impacts: how weights are stored: ``"float32"`` is exact, ``"float16"`` and ``"uint8"`` round.
            pruning: which small weights are left out; ``None`` keeps all, which is exact.

        Raises:
            SpectraError: the columns do not fit together, or a weight is negative or not finite.
            UsageError: the folder holds something else than an index.
        """
        width = int(rows.shape[1])
        if vocabulary is not None and len(vocabulary) != width:
            raise SpectraError(f"there are {len(vocabulary):,} terms, but the rows have {width:,} dimensions.")
        part = PostingsPart(width=width, impacts=impacts, pruning=pruning)
        terms = {} if vocabulary is None else {VOCABULARY: json.dumps(list(vocabulary)).encode()}
        facts = {} if model is None else {"models": {NAME: dict(model)}}
        with new_index(folder) as draft:
            index = Index.create(draft, KIND, {NAME: part}, facts=facts, files={**terms, **(files or {})})
            index.add(ids, {NAME: rows}, texts=texts, metadata=metadata)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: str | Path) -> SparseIndex:
        """Opens an index by memory map.

        Raises:
            SpectraError: there is none, or it is damaged or of another kind.
        """
        return cls(Index.load(folder))

    @classmethod
    def read(cls, source: str | Path, folder: str | Path, **options: Any) -> SparseIndex:
        """Builds an index from the neutral form, see `exchange`; documents without ids are numbered.

        Args:
            source: the folder of the neutral form.
            folder: where to.
            **options: `model`, `files`, `impacts` and `pruning` of `build`.
        """
        content = read_rows(source)
        records = content.records or [Record(id=str(number)) for number in range(content.rows.shape[0])]
        texts = [record.text or "" for record in records] if any(record.text for record in records) else None
        return cls.build(
            folder,
            content.rows,
            [record.id for record in records],
            texts=texts,
            metadata=[record.metadata for record in records],
            vocabulary=content.vocabulary,
            **options,
        )

    def add(
        self,
        rows: Any,
        ids: Sequence[str],
        *,
        texts: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        replace: bool = False,
    ) -> None:
        """Adds documents in one commit, see `Index.add`."""
        self.index.add(ids, {NAME: rows}, texts=texts, metadata=metadata, replace=replace)

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes documents in one commit and returns how many there were."""
        return self.index.delete(ids)

    def search(self, queries: Any, k: int) -> Hits:
        """Returns the min(k, N) best documents of each query.

        A score of zero is no hit. Equal scores are ordered by position, at the cut too.

        Args:
            queries: CSR rows (Q, V).
            k: hits per query.

        Raises:
            SpectraError: the queries have another width, or the index is damaged.
            UsageError: k is not positive.
        """
        return self.index.part(NAME).search(queries, k)

    def scores(self, queries: Any, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the exact scores (Q, C) of documents; anything beside positions of −1."""
        return self.index.part(NAME).scores(queries, positions)

    def ids(self, hits: Hits) -> list[list[str]]:
        """Returns the ids of the hits of each query."""
        return [[record.id for record in self.index.records(row)] for row in hits.positions]

    def count(self) -> int:
        """Returns the number of documents."""
        return self.index.count()

    def compact(self) -> None:
        """Merges all segments into one without the deleted documents."""
        self.index.compact()

    def save(self, folder: str | Path) -> None:
        """Copies the index to another folder."""
        self.index.save(folder)

    def close(self) -> None:
        """Releases the files."""
        self.index.close()

    def vocabulary(self) -> list[str] | None:
        """Returns the terms; ``None`` if they are not known."""
        return read_vocabulary(self.index)

    def rows(self) -> Any:
        """Returns the documents that are not deleted as CSR rows, in memory."""
        from scipy.sparse import csr_matrix, vstack

        width = self.index.parts[NAME].settings()["width"]
        blocks = [csr_matrix((0, width), dtype=np.float32)]
        for segment in self.index.segments:
            lists = segment.parts[NAME]
            assert isinstance(lists, Postings)
            blocks.append(lists.rows(segment.kept))
        return sparse_rows(vstack(blocks, format="csr"), width, "documents")

    def export(self, folder: str | Path) -> None:
        """Writes the neutral form, see `exchange`. Weights are those of the index: rounded or pruned ones stay so."""
        records = [segment.records.record(int(row)) for segment in self.index.segments for row in segment.kept]
        write_rows(folder, SparseRows(rows=self.rows(), vocabulary=self.vocabulary(), records=records))


def read_vocabulary(index: Index) -> list[str] | None:
    """Returns the terms of an index; ``None`` if they are not known.

    Raises:
        SpectraError: the file is damaged.
    """
    path = expand_user(index.folder) / VOCABULARY
    if VOCABULARY not in index.commit.files:
        return None
    terms = read_json(path)
    if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
        raise SpectraError(f"{path} is not a list of terms.")
    return terms
