"""Qdrant Edge as the engine: exact, with filters, in one process (extra `index`).

    DIR/edge.json    the manifest: width, model, and how many documents the shard must have
    DIR/shard/       what the engine writes

The manifest is ours because the engine opens a truncated list of documents silently, with documents missing. It is
written before and after each change, so that after a kill the number may be between the two, and nothing else.
A write-ahead log locks the shard for one process, readers included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra
from spectra_nsa.core.files import atomic_folder, check_replaceable, expand_user, read_json_object, write_json
from spectra_nsa.index.hits import Hits, check_k, no_hits
from spectra_nsa.index.records import id_hash, make_records
from spectra_nsa.index.sparse.part import sparse_rows

MANIFEST, SHARD, VECTOR = "edge.json", "shard", "sparse"
SCHEMA = 1
_BATCH = 2_000  # documents per operation
_TEXT, _ID, _METADATA = "text", "id", "metadata"  # keys of the payload


def _engine() -> Any:
    try:
        import qdrant_edge
    except ImportError as error:
        raise missing_extra("qdrant-edge-py", "index") from error
    return qdrant_edge


class EdgeIndex:
    """An index in Qdrant Edge. `build` and `load` make one; `close` releases its lock.

    Positions of hits are numbers that the engine gives documents: 63 bits of a digest of the id.
    """

    def __init__(self, folder: Path, shard: Any, facts: dict[str, Any]) -> None:
        self.folder, self._shard, self._facts = folder, shard, facts

    @classmethod
    def build(
        cls,
        folder: str | Path,
        rows: Any,
        ids: Sequence[str],
        *,
        texts: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> EdgeIndex:
        """Builds an index, in place of an older one; arguments as in `SparseIndex.build`."""
        engine, path = _engine(), expand_user(folder)
        check_replaceable(path, MANIFEST)
        width = int(rows.shape[1])
        with atomic_folder(path) as draft:
            facts: dict[str, Any] = {"schema": SCHEMA, "width": width, "model": dict(model or {}), "documents": [0, 0]}
            write_json(draft / MANIFEST, facts)
            (draft / SHARD).mkdir()
            config = engine.EdgeConfig(sparse_vectors={VECTOR: engine.EdgeSparseVectorParams()}, wal_enabled=True)
            index = cls(draft, engine.EdgeShard.create(str(draft / SHARD), config), facts)
            with contextlib.closing(index):
                index.add(rows, ids, texts=texts, metadata=metadata)
                index.optimize()
        return cls.load(path)

    @classmethod
    def load(cls, folder: str | Path) -> EdgeIndex:
        """Opens an index and checks that no document is missing.

        Raises:
            SpectraError: there is none, another process has it open, or documents are missing.
        """
        engine, path = _engine(), expand_user(folder)
        facts = read_json_object(path / MANIFEST)
        bounds, width = facts.get("documents"), facts.get("width")
        match bounds:
            case [int(low), int(high)] if facts.get("schema") == SCHEMA and type(width) is int and width > 0:
                pass
            case _:
                raise SpectraError(f"{path / MANIFEST} is damaged, or of a version that this one does not read.")
        try:
            shard = engine.EdgeShard.load(str(path / SHARD))
        except BaseException as error:  # a panic of the engine is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            reason = (str(error).splitlines() or [""])[0]
            if "WouldBlock" in str(error) or "lock" in str(error).lower():
                raise UsageError(f"another process has {path} open: Qdrant Edge allows one at a time.") from error
            raise SpectraError(f"{path} cannot be opened by Qdrant Edge ({reason[:200]}). Build it again.") from error
        index = cls(path, shard, facts)
        found = index.count()
        if not min(low, high) <= found <= max(low, high):
            index.close()
            raise SpectraError(
                f"{path} has {found:,} documents instead of {max(low, high):,}: it is damaged. Build it again."
            )
        return index

    def add(
        self,
        rows: Any,
        ids: Sequence[str],
        *,
        texts: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Adds documents, in place of those with the same ids. A kill in the middle may leave the first ones added."""
        engine = _engine()
        matrix = sparse_rows(rows, self._facts["width"], "documents")
        records = make_records(list(ids), texts, metadata)
        if matrix.shape[0] != len(records):
            raise SpectraError(f"there are {len(records):,} ids but {matrix.shape[0]:,} rows.")
        with self._change(len(records)):
            for start in range(0, len(records), _BATCH):
                points = []
                for row in range(start, min(start + _BATCH, len(records))):
                    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
                    vector = engine.SparseVector(
                        indices=matrix.indices[part].tolist(), values=matrix.data[part].tolist()
                    )
                    record = records[row]
                    payload = {_ID: record.id, _TEXT: record.text, _METADATA: dict(record.metadata or {})}
                    points.append(engine.Point(_number(record.id), {VECTOR: vector}, payload))
                self._shard.update(engine.UpdateOperation.upsert_points(points))

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes documents and returns how many there were."""
        numbers = [_number(key) for key in dict.fromkeys(ids)]
        before = self.count()
        with self._change(-len(numbers)):
            self._shard.update(_engine().UpdateOperation.delete_points(numbers))
        return before - self.count()

    def search(self, queries: Any, k: int, *, where: Mapping[str, str | int | bool] | None = None) -> Hits:
        """Returns the min(k, N) best documents of each query.

        Args:
            queries: CSR rows (Q, V).
            k: hits per query.
            where: values that the metadata of a hit must have, by key.

        Raises:
            SpectraError: the queries have another width.
        """
        engine = _engine()
        rows = sparse_rows(queries, self._facts["width"], "queries")
        hits = no_hits(rows.shape[0], min(check_k(k), max(self._facts["documents"])))
        depth = hits.positions.shape[1]
        empty = np.diff(rows.indptr) == 0
        if depth:
            requests, asked = [], np.flatnonzero(~empty)
            for row in asked:
                part = slice(rows.indptr[row], rows.indptr[row + 1])
                vector = engine.SparseVector(indices=rows.indices[part].tolist(), values=rows.data[part].tolist())
                query = engine.Query.Nearest(vector, using=VECTOR)
                requests.append(engine.QueryRequest(query=query, limit=depth, filter=_filter(where)))
            found = self._shard.query_batch(engine.QueryBatchRequest(requests)) if requests else []
            for row, points in zip(asked, found, strict=True):
                hits.positions[row, : len(points)] = [int(point.id) for point in points]
                hits.scores[row, : len(points)] = [point.score for point in points]
        return Hits(positions=hits.positions, scores=hits.scores, empty=int(empty.sum()))

    def ids(self, hits: Hits) -> list[list[str]]:
        """Returns the ids of the hits of each query."""
        numbers = np.unique(hits.positions[hits.positions >= 0]).tolist()
        records = self._shard.retrieve(numbers, with_payload=True, with_vector=False) if numbers else []
        names = {int(record.id): str(record.payload[_ID]) for record in records}
        return [[names[int(number)] for number in row if number >= 0] for row in hits.positions]

    def count(self) -> int:
        """Returns the number of documents, counted exactly: the engine's own estimate is too high after a crash."""
        return int(self._shard.count(_engine().CountRequest(exact=True)))

    def optimize(self) -> None:
        """Lets the engine merge its segments, which makes search faster."""
        self._shard.optimize()
        self._shard.flush()

    def close(self) -> None:
        """Flushes what was written and releases the lock."""
        self._shard.flush()
        self._shard.close()

    @contextlib.contextmanager
    def _change(self, most: int) -> Iterator[None]:
        """Notes in the manifest by how many documents the number may change, and afterwards what it is."""
        before = self.count()
        self._note(before, max(0, before + most))
        yield
        self._shard.flush()
        after = self.count()
        self._note(after, after)

    def _note(self, low: int, high: int) -> None:
        self._facts["documents"] = [low, high]
        write_json(self.folder / MANIFEST, self._facts)


def _number(key: str) -> int:
    return id_hash(key) >> 1


def _filter(where: Mapping[str, str | int | bool] | None) -> Any:
    if not where:
        return None
    engine = _engine()
    conditions = [
        engine.FieldCondition(key=f"{_METADATA}.{key}", match=engine.MatchValue(value)) for key, value in where.items()
    ]
    return engine.Filter(must=conditions)
