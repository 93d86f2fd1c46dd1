"""Seismic as the engine: approximate, built once, in memory (extra `seismic`; its README asks for a citation).

Bruch et al. 2024: posting lists are cut and clustered, and a query visits only the blocks whose summaries promise a
high score. So documents can be missed: `recall` measures how many, against exact search.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.errors import SpectraError, missing_extra
from spectra_nsa.core.files import atomic_folder, check_replaceable, expand_user, read_json_object, write_json
from spectra_nsa.index.hits import Hits, check_k, no_hits
from spectra_nsa.index.records import make_records
from spectra_nsa.index.sparse.part import sparse_rows

MANIFEST, INDEX, _SUFFIX = "seismic.json", "postings", ".index.seismic"
_WIDEST = 1 << 16  # terms that the engine numbers with 16 bits


class SeismicIndex:
    """An approximate index. `build` and `load` make one. Documents cannot be added or deleted.

    Attributes:
        query_cut: how many of a query's largest weights choose the lists that are visited.
        heap_factor: how much lower than the k-th hit the promise of a visited block may be, as a factor; smaller visits
            more.
    """

    def __init__(self, index: Any, width: int, ids: list[str]) -> None:
        self._index, self._width, self._ids = index, width, ids
        self.query_cut, self.heap_factor = 10, 0.7

    @classmethod
    def build(cls, folder: str | Path, rows: Any, ids: Sequence[str], **options: Any) -> SeismicIndex:
        """Builds an index, in place of an older one.

        Args:
            folder: where to.
            rows: CSR rows (N, V) of at most 65,536 terms.
            ids: N unique names.
            **options: of the engine's `build_from_dataset`, such as `n_postings`.

        Raises:
            SpectraError: the engine is not installed, or cannot hold the rows.
        """
        engine, path = _engine(), expand_user(folder)
        check_replaceable(path, MANIFEST)
        width = int(rows.shape[1])
        matrix = sparse_rows(rows, width, "documents")
        if width > _WIDEST or not matrix.nnz:
            raise SpectraError(f"Seismic holds 1 to {_WIDEST:,} terms, not {width if matrix.nnz else 0:,}.")
        make_records(list(ids))
        dataset = engine.SeismicDataset(dim=width)
        numbers = [str(number) for number in range(matrix.shape[0])]
        components, offsets = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
        dataset.add_documents_by_id(numbers, components, matrix.data.astype(np.float32), offsets)
        index = engine.SeismicIndex.build_from_dataset(dataset, **options)
        with atomic_folder(path) as draft:
            index.save(str(draft / INDEX))
            write_json(draft / MANIFEST, {"schema": 1, "width": width, "ids": list(ids)})
        return cls(index, width, list(ids))

    @classmethod
    def load(cls, folder: str | Path) -> SeismicIndex:
        """Reads an index into memory. Raises `SpectraError` if there is none, or it is damaged."""
        engine, path = _engine(), expand_user(folder)
        facts = read_json_object(path / MANIFEST)
        try:
            index = engine.SeismicIndex.load(str(path / (INDEX + _SUFFIX)))
            width, ids = int(facts["width"]), [str(key) for key in facts["ids"]]
        except BaseException as error:  # a panic of the engine is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise SpectraError(f"{path} cannot be opened by Seismic. Build it again.") from error
        return cls(index, width, ids)

    def add(self, rows: Any, ids: Sequence[str]) -> None:
        """Raises `SpectraError`: the engine builds an index once."""
        raise SpectraError("a Seismic index cannot be changed: build it again, or use SparseIndex.")

    def delete(self, ids: Sequence[str]) -> int:
        """Raises `SpectraError`: the engine builds an index once."""
        raise SpectraError("a Seismic index cannot be changed: build it again, or use SparseIndex.")

    def search(self, queries: Any, k: int) -> Hits:
        """Returns up to min(k, N) good documents of each query, not always the best."""
        rows = sparse_rows(queries, self._width, "queries")
        hits = no_hits(rows.shape[0], min(check_k(k), self.count()))
        asked = np.flatnonzero(np.diff(rows.indptr))
        parts = [slice(rows.indptr[row], rows.indptr[row + 1]) for row in asked]
        text = _engine().get_seismic_string()
        found = self._index.batch_search(
            queries_ids=np.array([str(row) for row in asked], dtype=text),
            query_components=[rows.indices[part].astype(text) for part in parts],
            query_values=[rows.data[part] for part in parts],
            k=hits.positions.shape[1],
            query_cut=self.query_cut,
            heap_factor=self.heap_factor,
        )
        for listed in found:  # a query without hits has no list, so they are matched by id
            for rank, (query, score, document) in enumerate(listed):
                hits.positions[int(query), rank] = int(document)
                hits.scores[int(query), rank] = score
        return Hits(positions=hits.positions, scores=hits.scores, empty=rows.shape[0] - len(asked))

    def ids(self, hits: Hits) -> list[list[str]]:
        """Returns the ids of the hits of each query."""
        return [[self._ids[int(at)] for at in row if at >= 0] for row in hits.positions]

    def count(self) -> int:
        """Returns the number of documents."""
        return len(self._ids)

    def close(self) -> None:
        """Releases the memory."""
        self._index = None


def recall(found: Hits, exact: Hits) -> float:
    """Returns the share of the exact hits that another search found too; 1 if there are none."""
    pairs = zip(found.positions, exact.positions, strict=True)
    shared = sum(len(np.intersect1d(left[left >= 0], right[right >= 0])) for left, right in pairs)
    return shared / max(1, int((exact.positions >= 0).sum())) if (exact.positions >= 0).any() else 1.0


def _engine() -> Any:
    try:
        import seismic
    except ImportError as error:
        raise missing_extra("pyseismic-lsr", "seismic") from error
    return seismic
