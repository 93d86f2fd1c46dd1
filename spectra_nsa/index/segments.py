"""Opened segments: their documents and parts, how they are written and merged, and how a part searches all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.index.arrays import damaged, map_array
from spectra_nsa.index.commits import Change, SegmentFacts
from spectra_nsa.index.hits import Hits, check_k, merge_hits
from spectra_nsa.index.parts import Part, PartSegment, Source
from spectra_nsa.index.records import Record, Records, write_lines

if TYPE_CHECKING:
    from spectra_nsa.index.collection import Index

Rows = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """An opened segment: its documents, which of them are deleted (empty if none is), and each part's files."""

    facts: SegmentFacts
    records: Records
    dead: NDArray[np.bool_]
    parts: Mapping[str, PartSegment]

    @property
    def kept(self) -> NDArray[np.int64]:
        """The positions of the documents that are not deleted."""
        return np.flatnonzero(~self.dead) if len(self.dead) else np.arange(self.facts.documents)

    def __len__(self) -> int:
        return self.facts.documents - int(self.dead.sum())


class PartRetriever:
    """An index, searched by one of its parts."""

    def __init__(self, index: Index, name: str) -> None:
        self.index, self.name = index, name

    def search(self, queries: Any, k: int) -> Hits:
        """Returns the min(k, N) best documents of each query.

        Raises:
            SpectraError: the queries do not fit the part, or the index is damaged.
            UsageError: k is not positive.
        """
        index, part = self.index, self.index.parts[self.name]
        k = min(check_k(k), index.count())
        opened = [segment.parts[self.name] for segment in index.segments]
        prepared = part.prepare(queries, opened)
        count, empty = part.query_count(prepared)
        found = [
            one.search(prepared, min(k, segment.facts.documents), segment.dead)
            for one, segment in zip(opened, index.segments, strict=True)
        ]
        return replace(merge_hits(found, index.starts, count, k), empty=empty)

    def scores(self, queries: Any, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the exact scores (Q, C) of the documents at `positions` (Q, C); anything beside −1."""
        opened = [segment.parts[self.name] for segment in self.index.segments]
        prepared = self.index.parts[self.name].prepare(queries, opened)
        found = np.zeros(positions.shape, dtype=np.float32)
        for one, segment, start in zip(opened, self.index.segments, self.index.starts, strict=True):
            inside = (positions >= start) & (positions < start + segment.facts.documents)
            if inside.any():
                local = np.where(inside, positions - start, -1)
                found[inside] = one.scores(prepared, local)[inside]
        return found


def open_segment(index: Path, facts: SegmentFacts, parts: Mapping[str, Part]) -> Segment:
    """Opens a segment by memory map.

    Args:
        index: the index's folder.
        facts: what the manifest says of it.
        parts: of the index.

    Raises:
        SpectraError: a file is damaged.
    """
    folder = index / facts.name
    dead = np.zeros(0, dtype=bool)
    if facts.deleted_file is not None:
        path = index / facts.deleted_file
        rows = map_array(path, np.int32, facts.deleted)
        dead = np.zeros(facts.documents, dtype=bool)
        if len(rows) and (rows.min() < 0 or rows.max() >= facts.documents):
            raise damaged(path, "it names a document that does not exist")
        dead[rows] = True
    return Segment(
        facts=facts,
        records=Records(folder, facts.documents),
        dead=dead,
        parts={name: part.open(folder, facts.documents) for name, part in parts.items()},
    )


def write_segment(writer: Change, records: Sequence[Record], rows: Rows, parts: Mapping[str, Part]) -> SegmentFacts:
    """Writes new documents as a segment."""
    folder = writer.new_segment()
    write_lines(folder, (record.line() for record in records), [record.id for record in records])
    for name, part in parts.items():
        part.write(folder, rows[name])
    return SegmentFacts(name=folder.name, documents=len(records))


def merge_segments(writer: Change, segments: Sequence[Segment], parts: Mapping[str, Part]) -> SegmentFacts:
    """Writes one segment with the documents of others that are not deleted."""
    folder = writer.new_segment()
    sources = [
        Source(folder=writer.folder / segment.facts.name, documents=segment.facts.documents, kept=segment.kept)
        for segment in segments
    ]
    ids = [segment.records.record(int(row)).id for segment in segments for row in segment.kept]
    write_lines(folder, (segment.records.line(int(row)) for segment in segments for row in segment.kept), ids)
    for part in parts.values():
        part.merge(folder, sources)
    return SegmentFacts(name=folder.name, documents=len(ids))


def delete_in(segments: Sequence[Segment], starts: Sequence[int], positions: Sequence[int]) -> list[Segment]:
    """Returns the segments with more documents marked as deleted.

    Args:
        segments: of an index.
        starts: the position of each segment's first document.
        positions: of the documents to delete, in the index.
    """
    marked = []
    for segment, start in zip(segments, starts, strict=True):
        rows = [at - start for at in positions if start <= at < start + segment.facts.documents]
        if rows:
            dead = segment.dead.copy() if len(segment.dead) else np.zeros(segment.facts.documents, dtype=bool)
            dead[rows] = True
            segment = replace(segment, dead=dead)
        marked.append(segment)
    return marked


def write_deleted(writer: Change, segments: Sequence[Segment]) -> list[SegmentFacts]:
    """Returns the facts of segments after writing which documents are deleted now; leaves out segments without any."""
    facts = []
    for segment in segments:
        rows = np.flatnonzero(segment.dead).astype(np.int32)
        if len(rows) == segment.facts.documents:
            continue
        if len(rows) == segment.facts.deleted:
            facts.append(segment.facts)
            continue
        path = writer.new_deleted_file()
        np.save(path, rows)
        facts.append(replace(segment.facts, deleted=len(rows), deleted_file=path.name))
    return facts
