"""The state of an index folder: one manifest, replaced at once by each change.

    DIR/manifest.json        kind, parts, segments, and every file with size and SHA-256: the last commit
    DIR/000001/              a segment: documents and their postings or vectors; never changed once committed
    DIR/deleted-000003.npy   the deleted documents of a segment

A change writes new files under new names, flushes them, and renames a new manifest over the old one. Whatever is killed
before that leaves the last commit as it was; files that no manifest names are deleted by the next change.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spectra_nsa.core.checksums import MANIFEST, SCHEMA, check_manifest, describe, sync_folder
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import expand_user, locked_folder, read_json, write_json

_SEGMENT = re.compile(r"\d{6}")
_DELETED = re.compile(r"deleted-\d{6}\.npy")


@dataclass(frozen=True, kw_only=True)
class SegmentFacts:
    """What the manifest says of a segment.

    Attributes:
        name: its folder.
        documents: how many it has, deleted ones included.
        deleted: how many of them are deleted.
        deleted_file: the file with their positions; ``None`` if there are none.
    """

    name: str
    documents: int
    deleted: int = 0
    deleted_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The state of an index after a change.

    Attributes:
        kind: ``"sparse"``, ``"hybrid"``, …
        parts: what it is searched by: the settings of each part, by name.
        segments: in the order of their documents.
        number: counts the changes.
        facts: what else the manifest holds, such as the models and the fitted fusion.
        files: size and SHA-256 of every file.
    """

    kind: str
    parts: Mapping[str, Mapping[str, Any]]
    segments: Sequence[SegmentFacts] = ()
    number: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        """The number of documents that are not deleted."""
        return sum(segment.documents - segment.deleted for segment in self.segments)

    def document(self) -> dict[str, Any]:
        """Returns the manifest."""
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "kind": self.kind,
            "number": self.number,
            "documents": self.documents,
        }
        segments = [asdict(segment) for segment in self.segments]
        return {**facts, "parts": self.parts, "facts": self.facts, "segments": segments, "files": self.files}


def is_index(folder: str | Path) -> bool:
    """Returns whether a folder is an index."""
    try:
        return "segments" in read_json(expand_user(folder) / MANIFEST)
    except (SpectraError, TypeError):
        return False


def read_number(folder: Path) -> int | None:
    """Returns the number of the last commit; ``None`` if it cannot be read."""
    try:
        return int(read_json(folder / MANIFEST)["number"])
    except (SpectraError, KeyError, TypeError, ValueError, OverflowError):
        return None


def read_commit(folder: Path) -> Commit:
    """Reads the last commit and checks that all of its files are there, by size.

    Raises:
        SpectraError: the folder is no index, or it is damaged.
    """
    where = folder / MANIFEST
    if not where.is_file():
        raise SpectraError(f"{folder} is not an index: it has no {MANIFEST}. Build one with `spectra index build`.")
    manifest = check_manifest(read_json(where), str(where))
    try:
        commit = _parsed(manifest)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise SpectraError(f"{where} is not the manifest of an index, or it is damaged ({error}).") from error
    for name, entry in commit.files.items():
        try:
            size = (folder / name).stat().st_size
        except (OSError, ValueError) as error:
            raise SpectraError(f"{folder / name} is missing: the index is damaged. Restore a copy.") from error
        if size != entry["size"]:
            raise SpectraError(
                f"{folder / name} has {size:,} bytes instead of {entry['size']:,}: the index is damaged. "
                "Restore a copy."
            )
    return commit


def _parsed(manifest: dict[str, Any]) -> Commit:
    segments = [SegmentFacts(**facts) for facts in manifest["segments"]]
    for segment in segments:
        numbers = segment.documents, segment.deleted
        if any(type(number) is not int for number in numbers) or not 0 <= segment.deleted <= segment.documents:
            raise ValueError(f"a segment has {numbers} documents")
        if segment.documents >= 2**31 or not _SEGMENT.fullmatch(segment.name):
            raise ValueError(f"a segment is called {segment.name!r}")
        if segment.deleted_file is not None and not _DELETED.fullmatch(segment.deleted_file):
            raise ValueError(f"a file is called {segment.deleted_file!r}")
        if (segment.deleted_file is not None) != bool(segment.deleted):
            raise ValueError("the file of deleted documents is missing")
    kind, number, parts, facts = (manifest[name] for name in ("kind", "number", "parts", "facts"))
    if not isinstance(kind, str) or type(number) is not int or not isinstance(facts, dict):
        raise TypeError("a value has the wrong type")
    if not isinstance(parts, dict) or not all(isinstance(settings, dict) for settings in parts.values()):
        raise TypeError("its parts are no objects")
    return Commit(kind=kind, parts=parts, segments=segments, number=number, facts=facts, files=manifest["files"])


class Change:
    """A change of an index that is under way. `commit` makes it the state of the index.

    Attributes:
        folder: the index.
        before: the last commit.
    """

    def __init__(self, folder: Path, before: Commit) -> None:
        self.folder, self.before = folder, before
        used = [int(segment.name) for segment in before.segments]
        self._next = max([*used, before.number]) + 1

    def new_segment(self) -> Path:
        """Creates the folder of a new segment."""
        folder = self.folder / f"{self._next:06}"
        self._next += 1
        folder.mkdir()
        return folder

    def new_deleted_file(self) -> Path:
        """Returns a new path for the deleted documents of a segment."""
        path = self.folder / f"deleted-{self._next:06}.npy"
        self._next += 1
        return path

    def commit(
        self,
        segments: Sequence[SegmentFacts],
        parts: Mapping[str, Mapping[str, Any]],
        facts: Mapping[str, Any],
    ) -> Commit:
        """Flushes the new files to the disk and replaces the manifest."""
        known = self.before.files
        names = [name for name in known if "/" not in name and not _DELETED.fullmatch(name)]
        names += [
            path.relative_to(self.folder).as_posix()
            for segment in segments
            for path in sorted((self.folder / segment.name).iterdir())
        ]
        names += [segment.deleted_file for segment in segments if segment.deleted_file is not None]
        files = {name: known[name] if name in known else describe(self.folder / name, sync=True) for name in names}
        for segment in segments:
            sync_folder(self.folder / segment.name)
        after = Commit(
            kind=self.before.kind,
            parts=parts,
            segments=segments,
            number=self._next,
            facts=facts,
            files=files,
        )
        sync_folder(self.folder)
        write_json(self.folder / MANIFEST, after.document())
        sync_folder(self.folder)
        _delete_strays(self.folder, after)
        return after


@contextlib.contextmanager
def change(folder: Path) -> Iterator[Change]:
    """Locks an index for one writer and yields a `Change`.

    Raises:
        UsageError: another process is changing it.
        SpectraError: it is damaged, or the disk is full; the last commit stays.
    """
    before = read_commit(folder)  # before the lock makes a folder
    with locked_folder(folder):
        before = read_commit(folder)
        _delete_strays(folder, before)
        try:
            yield Change(folder, before)
        except OSError as error:
            raise SpectraError(
                f"cannot write to {folder}: {error.strerror or error}. The index is unchanged."
            ) from error
        finally:
            with contextlib.suppress(SpectraError, OSError):
                _delete_strays(folder, read_commit(folder))


def _delete_strays(folder: Path, commit: Commit) -> None:
    """Deletes what a killed change left behind, and what the last change replaced."""
    kept = {segment.name for segment in commit.segments} | {segment.deleted_file for segment in commit.segments}
    for path in folder.iterdir():
        if path.name in kept:
            continue
        if _SEGMENT.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif _DELETED.fullmatch(path.name):
            path.unlink(missing_ok=True)
