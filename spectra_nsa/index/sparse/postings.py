"""Posting lists of one segment: written from rows, merged from other segments, opened by memory map, searched."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.index.arrays import check_starts, damaged, map_array, new_array
from spectra_nsa.index.hits import Hits, no_hits
from spectra_nsa.index.sparse.impacts import STORED, ImpactForm, decode_impacts, decoder, encode_impacts
from spectra_nsa.index.sparse.plain import search_plain

_CHUNK = 1 << 22  # postings copied or checked at a time
_SHARE = 8  # queries from which a thread of their own is worth starting
_IMPORT = 100_000_000  # postings and documents that numpy scores in the time that importing numba takes
_scored = 0  # how many numpy has scored


def kernels_loaded() -> bool:
    """Returns whether the compiled kernels are imported."""
    return "spectra_nsa.index.sparse.kernels" in sys.modules


def use_numba(work: int) -> bool:
    """Returns whether to import the compiled kernels: numba is installed, and worth importing.

    Args:
        work: postings and documents to be scored now.
    """
    global _scored
    _scored += work
    return _scored > _IMPORT and find_spec("numba") is not None


def processors() -> int:
    """Returns the number of processors that this process may use, at most OMP_NUM_THREADS."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(usable, int(limit))) if limit.isdigit() else usable


class Postings:
    """The posting lists of one segment.

    Args:
        folder: the segment's folder.
        name: the part's name, with which the files begin.
        documents: number of documents.
        width: size of the vocabulary.
        form: how impacts are stored.

    Raises:
        SpectraError: a file is damaged.
    """

    def __init__(self, folder: Path, name: str, documents: int, width: int, form: ImpactForm) -> None:
        self.files = [folder / f"{name}.{kind}.npy" for kind in ("starts", "documents", "impacts")]
        self.count, self.form = documents, form
        self.starts = map_array(self.files[0], np.int64, width + 1)
        self.documents = map_array(self.files[1], np.int32)
        self.impacts = map_array(self.files[2], STORED[form], len(self.documents))
        check_starts(self.files[0], self.starts, len(self.documents))

    def search(self, queries: Any, k: int, dead: NDArray[np.bool_], *, numba: bool | None = None) -> Hits:
        """Returns the k best documents of each query. A score of zero is no hit.

        Args:
            queries: CSR rows of float32 with sorted indices.
            k: hits per query.
            dead: which documents are deleted; empty if none is.
            numba: whether to use the compiled kernels; ``None`` if they are
                loaded or worth loading. The hits are the same.

        Raises:
            SpectraError: the postings are damaged.
        """
        hits = no_hits(queries.shape[0], min(k, self.count))
        if not self.count:
            return hits
        if numba is None:
            work = 0 if kernels_loaded() else int(self.lengths()[queries.indices].sum()) + queries.shape[0] * self.count
            numba = kernels_loaded() or use_numba(work)
        if not numba:
            sound = self._search_plain(queries, dead, hits)
        elif queries.shape[0] < 2 * _SHARE or processors() == 1:
            sound = self._search_rows(queries, dead, hits, 0, queries.shape[0])
        else:
            threads = min(processors(), queries.shape[0] // _SHARE)
            bounds = np.linspace(0, queries.shape[0], threads + 1).astype(int)
            run = functools.partial(self._search_rows, queries, dead, hits)
            with ThreadPoolExecutor(threads) as pool:
                sound = all(pool.map(run, bounds[:-1], bounds[1:]))
        if not sound:
            raise damaged(self.files[1], "a list is not in the order of existing documents")
        return hits

    def _search_plain(self, queries: Any, dead: NDArray[np.bool_], hits: Hits) -> bool:
        return search_plain(
            self.starts, self.documents, self._weights, queries, self.count, dead, hits.positions, hits.scores
        )

    def _search_rows(self, queries: Any, dead: NDArray[np.bool_], hits: Hits, start: int, stop: int) -> bool:
        from spectra_nsa.index.sparse.kernels import search

        lists = (self.starts, self.documents, self.impacts)
        ends = queries.indptr[start : stop + 1].astype(np.int64)
        part = slice(ends[0], ends[-1])
        terms, weights = queries.indices[part].astype(np.int64), np.ascontiguousarray(queries.data[part])
        query = (terms, weights, ends - ends[0], self.count, dead, hits.positions[start:stop], hits.scores[start:stop])
        table = None if self.form == "float32" else decoder(self.form)
        return bool(search(*lists, table, *query))

    def _weights(self, part: slice) -> NDArray[np.float32]:
        return decode_impacts(self.impacts[part], self.form)

    def scores(self, queries: Any, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the scores (Q, C) of documents, equal to those of `search`; positions of −1 get any score.

        Each candidate is looked up in the list of each term of the query, so no list is read as a whole.
        """
        scores = np.zeros(positions.shape, dtype=np.float32)
        for query in range(queries.shape[0]):
            for at in range(queries.indptr[query], queries.indptr[query + 1]):
                term = queries.indices[at]
                start, end = int(self.starts[term]), int(self.starts[term + 1])
                if start == end:
                    continue
                places = np.minimum(np.searchsorted(self.documents[start:end], positions[query]), end - start - 1)
                listed = self.documents[start:end][places] == positions[query]
                values = decode_impacts(self.impacts[start + places], self.form)
                scores[query] += np.where(listed, queries.data[at] * values, np.float32(0))
        return scores

    def lengths(self) -> NDArray[np.int64]:
        """Returns the length of the list of each term: (V,)."""
        return np.diff(self.starts)

    def rows(self, kept: NDArray[np.int64] | None = None) -> Any:
        """Returns the documents as CSR rows (N, V) in memory; only those at `kept`, if given."""
        from scipy.sparse import csc_matrix

        shape = (self.count, len(self.starts) - 1)
        columns = csc_matrix((self._weights(slice(None)), self.documents, self.starts), shape=shape)
        rows = columns.tocsr()
        return rows if kept is None else rows[kept]

    def check(self) -> None:
        """Checks every list and impact.

        Raises:
            SpectraError: a list is out of order, or an impact is not positive.
        """
        for first, last in _term_chunks(self.starts):
            start, end = int(self.starts[first]), int(self.starts[last])
            listed, weights = self.documents[start:end], self._weights(slice(start, end))
            opens = np.zeros(end - start, dtype=bool)
            inner = self.starts[first:last] - start
            opens[inner[inner < end - start]] = True
            rises = np.diff(listed, prepend=np.int32(-1)) > 0
            if not (rises | opens).all():
                raise damaged(self.files[1], "a list is not in the order of existing documents")
            if len(listed) and (listed.min() < 0 or listed.max() >= self.count):
                raise damaged(self.files[1], "it names a document that does not exist")
            if not (np.isfinite(weights) & (weights > 0)).all():
                raise damaged(self.files[2], "a weight is not positive")


def write_postings(folder: Path, name: str, rows: Any, form: ImpactForm) -> None:
    """Writes the posting lists of a segment.

    Args:
        folder: the segment's folder.
        name: the part's name.
        rows: CSR rows (N, V) of float32 with sorted indices, without repetition and explicit zeros.
        form: how impacts are stored.

    Raises:
        SpectraError: a weight is too large for the form.
    """
    columns = rows.tocsc()  # keeps the order of rows within a column
    np.save(folder / f"{name}.starts.npy", columns.indptr.astype(np.int64))
    np.save(folder / f"{name}.documents.npy", columns.indices.astype(np.int32))
    np.save(folder / f"{name}.impacts.npy", encode_impacts(columns.data, form))


def merge_postings(
    folder: Path,
    name: str,
    sources: Sequence[tuple[Postings, NDArray[np.int64], NDArray[np.int64] | None]],
    width: int,
    form: ImpactForm,
) -> None:
    """Writes the posting lists of the kept documents of several segments, in pieces of bounded memory.

    Args:
        folder: the new segment's folder.
        name: the part's name.
        sources: for each segment its lists, the kept positions (ascending), and the new number of each of its terms;
            ``None`` if terms keep their numbers. Terms without kept documents may have the number `width`.
        width: size of the new vocabulary.
        form: how impacts are stored.
    """
    renumbered, base = [], 0
    lengths = np.zeros((len(sources), width + 1), dtype=np.int64)
    for number, (lists, kept, terms) in enumerate(sources):
        new = np.full(lists.count, -1, dtype=np.int32)
        new[kept] = np.arange(base, base + len(kept), dtype=np.int32)
        base += len(kept)
        renumbered.append(new)
        own = np.zeros(len(lists.starts) - 1, dtype=np.int64)
        columns = np.arange(width) if terms is None else terms
        for first, last in _term_chunks(lists.starts):
            alive = new[lists.documents[int(lists.starts[first]) : int(lists.starts[last])]] >= 0
            sums = np.concatenate([[0], np.cumsum(alive)])
            inner = lists.starts[first : last + 1] - lists.starts[first]
            own[first:last] = np.diff(sums[inner])
        np.add.at(lengths[number], columns, own)
    starts = np.concatenate([[0], np.cumsum(lengths.sum(0)[:width])]).astype(np.int64)
    np.save(folder / f"{name}.starts.npy", starts)
    documents = new_array(folder / f"{name}.documents.npy", np.int32, int(starts[-1]))
    impacts = new_array(folder / f"{name}.impacts.npy", STORED[form], int(starts[-1]))
    free = starts.copy()
    for number, (lists, _, terms) in enumerate(sources):
        for first, last in _term_chunks(lists.starts):
            part = slice(int(lists.starts[first]), int(lists.starts[last]))
            moved = renumbered[number][lists.documents[part]]
            alive = moved >= 0
            columns = np.arange(first, last) if terms is None else terms[first:last]
            sizes = lengths[number, columns]
            offsets = np.repeat(free[columns] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
            documents[offsets], impacts[offsets] = moved[alive], lists.impacts[part][alive]
            np.add.at(free, columns, sizes)
    del documents, impacts


def _term_chunks(starts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Returns ranges of terms that hold at most about `_CHUNK` postings, and at least one term."""
    width = len(starts) - 1
    chunks, first = [], 0
    while first < width:
        last = int(np.searchsorted(starts, starts[first] + _CHUNK, side="right")) - 1
        last = min(max(last, first + 1), width)
        chunks.append((first, last))
        first = last
    return chunks
