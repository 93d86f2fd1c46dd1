"""An index: documents in a folder, added, deleted and found by one or several parts.

    index = Index.create(folder, "sparse", {"sparse": PostingsPart(width=30_522)})
    index.add(ids, {"sparse": rows}, texts=texts)
    hits = index.part("sparse").search(queries, 10)
    index.records(hits.positions[0])

One process changes an index at a time; any number read it. Each reader sees the commit that it opened.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.checksums import MANIFEST, damage, describe
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, unknown_name
from spectra_nsa.core.files import atomic_folder, check_replaceable, expand_user, write_json
from spectra_nsa.index.commits import Change, Commit, SegmentFacts, change, is_index, read_commit, read_number
from spectra_nsa.index.parts import Part, open_part
from spectra_nsa.index.records import Record, make_records
from spectra_nsa.index.segments import (
    PartRetriever,
    Rows,
    Segment,
    delete_in,
    merge_segments,
    open_segment,
    write_deleted,
    write_segment,
)


class Index:
    """An index folder, opened. `create` and `load` make one.

    Attributes:
        folder: where it is.
        commit: the state that this object sees.
        parts: what it is searched by.
        segments: in the order of their documents.
        starts: the position of each segment's first document.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segments: list[Segment] = []
        while True:
            number = read_number(folder)
            try:
                self._open(read_commit(folder))
                return
            except SpectraError:
                if read_number(folder) == number:
                    raise  # else a writer has replaced it, with its files, meanwhile

    @classmethod
    def create(
        cls,
        folder: str | Path,
        kind: str,
        parts: Mapping[str, Part],
        *,
        facts: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Index:
        """Creates an empty index, in place of an older index if the folder is one.

        Args:
            folder: where to.
            kind: what the manifest calls it.
            parts: what it is searched by, by name.
            facts: what else the manifest holds; JSON values.
            files: further files by name, such as the vocabulary.

        Raises:
            UsageError: the folder holds something else.
        """
        path = check_target(folder)
        settings = {name: part.settings() for name, part in parts.items()}
        with atomic_folder(path) as draft:
            for name, data in (files or {}).items():
                (draft / name).write_bytes(data)
            known = {name: describe(draft / name, sync=True) for name in files or {}}
            commit = Commit(kind=kind, parts=settings, facts=dict(facts or {}), files=known)
            write_json(draft / MANIFEST, commit.document())
        return cls(path)

    @classmethod
    def load(cls, folder: str | Path) -> Index:
        """Opens an index by memory map.

        Raises:
            SpectraError: there is none, or it is damaged.
        """
        return cls(expand_user(folder))

    def part(self, name: str) -> PartRetriever:
        """Returns the index as searched by one part.

        Raises:
            UsageError: it has none of that name.
        """
        if name not in self.parts:
            raise unknown_name("part of the index", name, self.parts)
        return PartRetriever(self, name)

    def count(self) -> int:
        """Returns the number of documents, without the deleted ones."""
        return self.commit.documents

    def records(self, positions: Sequence[int] | NDArray[np.int64]) -> list[Record]:
        """Returns the documents at positions; those of −1 are left out."""
        found = []
        for position in positions:
            if position >= 0:
                number = int(np.searchsorted(self.starts, position, side="right")) - 1
                found.append(self.segments[number].records.record(int(position) - self.starts[number]))
        return found

    def ids_of_texts(self) -> dict[str, str]:
        """Returns the id of each text that is stored."""
        found = {}
        for segment in self.segments:
            for row in segment.kept:
                record = segment.records.record(int(row))
                if record.text is not None:
                    found[record.text] = record.id
        return found

    def positions(self, ids: Sequence[str]) -> list[int]:
        """Returns the position of each id; −1 if the index does not have it."""
        found = [-1] * len(ids)
        for segment, start in zip(self.segments, self.starts, strict=True):
            for at, row in enumerate(segment.records.rows(ids).tolist()):
                if row >= 0 and not (len(segment.dead) and segment.dead[row]):
                    found[at] = start + row
        return found

    def add(
        self,
        ids: Sequence[str],
        rows: Rows,
        *,
        texts: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        replace: bool = False,
    ) -> None:
        """Adds documents in one commit.

        Small segments at the end are merged with the new one, so that their number grows with the logarithm of the
        number of documents.

        Args:
            ids: unique names.
            rows: for each part, the rows of all documents.
            texts: their texts; ``None`` stores none.
            metadata: a JSON object for each, or ``None``.
            replace: whether documents with the same ids are replaced; otherwise they are an error.

        Raises:
            SpectraError: an id is in the index already or twice in `ids`, the rows do not fit, or the disk is full.
                The index is unchanged.
            UsageError: another process is changing the index.
        """
        records = make_records(list(ids), texts, metadata)
        with change(self.folder) as writer:
            self._open(writer.before)
            self._check_rows(len(records), rows)
            old = [at for at in self.positions(list(ids)) if at >= 0]
            if len(old) and not replace:
                key = self.records([old[0]])[0].id
                raise SpectraError(
                    f"the index has {key!r} already, as {len(old):,} of the {counted(len(ids), 'new id')}. Replace "
                    "these documents, or delete them first."
                )
            if not records:
                return
            segments = delete_in(self.segments, self.starts, old)
            fresh = write_segment(writer, records, rows, self.parts)
            small: list[Segment] = []
            while segments and len(segments[-1]) <= len(records) + sum(map(len, small)):
                small.insert(0, segments.pop())
            if small:
                new = open_segment(self.folder, fresh, self.parts)
                fresh = merge_segments(writer, [*small, new], self.parts)
            self._commit(writer, [*write_deleted(writer, segments), fresh])

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes documents in one commit and returns how many there were. Unknown ids are ignored."""
        with change(self.folder) as writer:
            self._open(writer.before)
            old = [at for at in self.positions(list(dict.fromkeys(ids))) if at >= 0]
            if len(old):
                segments = delete_in(self.segments, self.starts, old)
                self._commit(writer, write_deleted(writer, segments))
            return len(old)

    def compact(self) -> None:
        """Merges all segments into one without the deleted documents, in one commit."""
        with change(self.folder) as writer:
            self._open(writer.before)
            if len(self.segments) > 1 or any(segment.facts.deleted for segment in self.segments):
                merged = merge_segments(writer, self.segments, self.parts)
                self._commit(writer, [merged] if merged.documents else [])

    def update_facts(self, **facts: Any) -> None:
        """Changes facts of the manifest in one commit."""
        with change(self.folder) as writer:
            self._open(writer.before)
            after = writer.commit(self.commit.segments, self.commit.parts, {**self.commit.facts, **facts})
            self._open(after)

    def save(self, folder: str | Path) -> None:
        """Copies the committed state to another folder, complete or not at all.

        Raises:
            UsageError: that folder holds something else than an index.
        """
        with atomic_folder(check_target(folder)) as draft:
            for name in self.commit.files:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / name, draft / name)
            write_json(draft / MANIFEST, self.commit.document())

    def verify(self) -> None:
        """Reads every file and checks it against its SHA-256, and that the parts hold together.

        Raises:
            SpectraError: something is damaged.
        """
        problem = damage(self.folder)
        if problem is not None:
            raise SpectraError(f"{self.folder} is damaged: {problem}. Restore a copy, or build it again.")
        for segment in self.segments:
            for row in range(segment.facts.documents):
                segment.records.record(row)
            for part in segment.parts.values():
                part.check()

    def close(self) -> None:
        """Releases the memory maps. The index cannot be used afterwards."""
        self.segments = []

    def _open(self, commit: Commit) -> None:
        self.commit = commit
        self.parts = {name: open_part(settings, str(self.folder)) for name, settings in commit.parts.items()}
        self.segments = [open_segment(self.folder, facts, self.parts) for facts in commit.segments]
        sizes = [segment.facts.documents for segment in self.segments]
        self.starts = [0, *np.cumsum(sizes, dtype=np.int64).tolist()][: len(sizes)]

    def _check_rows(self, documents: int, rows: Rows) -> None:
        for name in rows:
            if name not in self.parts:
                raise unknown_name("part of the index", name, self.parts)
        for name, part in self.parts.items():
            if name not in rows:
                raise SpectraError(f"the rows of the part {name!r} are missing.")
            count = part.count(rows[name])
            if count != documents:
                raise SpectraError(f"there are {counted(documents, 'id')} but {count:,} rows of {name!r}.")

    def _commit(self, writer: Change, segments: Sequence[SegmentFacts]) -> None:
        settings = {name: part.settings() for name, part in self.parts.items()}
        self._open(writer.commit(segments, settings, self.commit.facts))


def check_target(folder: str | Path) -> Path:
    """Returns the path of an index to be written, which may replace an older index.

    Raises:
        UsageError: the folder holds something else.
    """
    path = expand_user(folder)
    if not is_index(path):
        check_replaceable(path, "")
    return path


@contextlib.contextmanager
def new_index(folder: str | Path) -> Iterator[Path]:
    """Yields a temporary folder for `Index.create`; it takes the place of `folder` when the block ends well.

    Raises:
        UsageError: the folder holds something else than an index.
    """
    with atomic_folder(check_target(folder)) as draft:
        yield draft
