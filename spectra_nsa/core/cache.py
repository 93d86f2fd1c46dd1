"""The cache: results that can be computed again, in `$XDG_CACHE_HOME/spectra-nsa`, else `~/.cache/spectra-nsa`.

An entry is a folder `KIND/KEY`. Its key is a digest of the facts that decide its content, such as checksums, and never
of a name as a user typed it. An entry is complete or absent; a damaged one counts as absent. The most recently used
entries of each kind are kept. If the cache cannot be written to, a temporary folder replaces it until the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from spectra_nsa.core.checksums import describe, file_stamp, settled
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_write, expand_user, read_json, read_json_object, write_json

_ENTRY = "entry.json"
_ABANDONED = 24 * 3600  # seconds after which an unfinished folder belongs to no running process
_VERIFIED = 64_000_000  # bytes up to which a file's SHA-256 is checked when an entry is read, and not its size alone
_REMEMBERED = 4_000_000  # bytes from which a file's SHA-256 is remembered
_CHECKSUMS = 256  # files whose SHA-256 is remembered


def cache_folder(kind: str) -> Path:
    """Returns the folder of one kind of entries; it need not exist yet."""
    return _writable(_root() / kind)


def cache_file(name: str) -> Path:
    """Returns the path of a single file in the cache; it need not exist yet."""
    return _writable(_root()) / name


def _root() -> Path:
    """Returns the folder of all kinds. A relative XDG_CACHE_HOME is ignored, as the standard asks."""
    choices = (os.environ.get("XDG_CACHE_HOME", ""), "~/.cache")
    homes = [home for choice in choices if (home := expand_user(choice)).is_absolute()]
    return homes[0] / "spectra-nsa" if homes else Path("~/.cache/spectra-nsa")  # there is no home folder


@functools.cache
def _writable(folder: Path) -> Path:
    """Returns a folder, or a temporary one in its place if it cannot be written to."""
    if folder.is_absolute():
        with contextlib.suppress(OSError):
            existing = next(path for path in (folder, *folder.parents) if path.exists())
            if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
                return folder
    return _temporary(_root()) / folder.name


@functools.cache
def _temporary(root: Path) -> Path:
    """Creates the folder that replaces the cache until the process ends, and says so once."""
    try:
        temporary, process = tempfile.mkdtemp(prefix="spectra-nsa-"), os.getpid()
    except OSError as error:
        raise SpectraError("there is no writable folder for temporary files. Set TMPDIR to one.") from error
    print(
        f"spectra: warning: the cache {root} cannot be written to, so nothing is kept for the next command. "
        "Set XDG_CACHE_HOME to a writable folder.",
        file=sys.stderr,
        flush=True,
    )

    def remove() -> None:
        if os.getpid() == process:  # forked processes run this too
            shutil.rmtree(temporary, ignore_errors=True)

    atexit.register(remove)
    return Path(temporary)


def cannot_keep(folder: Path, error: OSError) -> SpectraError:
    """Returns the error for a cache whose disk is full."""
    return SpectraError(
        f"cannot write to {folder}: {error.strerror or error}. Free some space there, or set XDG_CACHE_HOME to a "
        "folder on a larger disk."
    )


@contextlib.contextmanager
def cache_write(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file of the cache for writing as `atomic_write` does.

    Raises:
        SpectraError: see `cannot_keep`.
    """
    try:
        with atomic_write(path, "wb") as file:
            yield file
    except SpectraError as error:
        if isinstance(error.__cause__, OSError):
            raise cannot_keep(path.parent, error.__cause__) from error
        raise


class Cache:
    """The entries of one kind.

    Args:
        kind: the name of their folder.
        keep: how many entries stay on disk.
    """

    def __init__(self, kind: str, *, keep: int) -> None:
        self.kind, self.keep = kind, keep

    @property
    def folder(self) -> Path:
        """Where the entries are."""
        return cache_folder(self.kind)

    def entry(self, **facts: Any) -> Entry:
        """Returns the entry for named facts, which must be JSON values; it need not exist yet."""
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return Entry(self, self.folder / digest[:32])

    def entries(self) -> list[Entry]:
        """Returns the entries on disk, sorted by key."""
        return [Entry(self, path) for path in sorted(self.folder.glob("[!.]*"))]

    def prune(self) -> None:
        """Deletes the least recently used entries beyond `keep`, and unfinished folders of killed processes."""
        paths = list(self.folder.glob("[!.]*"))
        for path in [path for path in paths if path.is_file()]:  # an older version stored files
            path.unlink(missing_ok=True)
        folders = [path for path in paths if path.is_dir()]
        for path in sorted(folders, key=_last_used, reverse=True)[self.keep :]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(".*"):
            if time.time() - max(map(_last_used, [path, *path.glob("*")]), default=0) > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)


class Entry:
    """One entry of a cache.

    Attributes:
        folder: its files, once it is complete.
    """

    def __init__(self, cache: Cache, folder: Path) -> None:
        self.cache, self.folder = cache, folder

    @property
    def parts(self) -> Path:
        """A folder for partial work, which survives a killed process for the next one; `commit` deletes it."""
        return self.folder.with_name(f".{self.folder.name}.parts")

    def read(self, **expected: Any) -> dict[str, Any] | None:
        """Returns the facts given to `commit` and marks the entry as used.

        Files of up to 64 MB are compared by SHA-256, larger ones by size.

        Args:
            **expected: facts that the entry must have.

        Returns:
            ``None`` if there is no entry, or one that is damaged or has other facts.
        """
        try:
            stored = read_json_object(self.folder / _ENTRY)
            facts: dict[str, Any] = dict(stored["facts"])
            if any(facts[name] != value for name, value in expected.items()):
                return None
            for name, file in stored["files"].items():
                path = self.folder / name
                if path.stat().st_size != file["size"]:
                    return None
                if file["size"] <= _VERIFIED and describe(path) != file:
                    return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        self.touch()
        return facts

    def sha256(self, name: str) -> str:
        """Returns the SHA-256 that a file of a complete entry was committed with."""
        return str(read_json(self.folder / _ENTRY)["files"][name]["sha256"])

    def touch(self) -> None:
        """Marks the entry as used."""
        with contextlib.suppress(OSError):
            os.utime(self.folder)

    @contextlib.contextmanager
    def draft(self) -> Iterator[Path]:
        """Yields an empty folder to be filled and passed to `commit`; without a `commit` it is deleted.

        Raises:
            SpectraError: it cannot be created, or the disk is full while it is filled.
        """
        try:
            self.cache.folder.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(dir=self.cache.folder, prefix=f".{self.folder.name}.", suffix=".tmp")
        except OSError as error:
            raise cannot_keep(self.cache.folder, error) from error
        try:
            yield Path(folder)
        except OSError as error:
            raise cannot_keep(self.cache.folder, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, draft: Path, facts: Mapping[str, Any]) -> None:
        """Makes a filled draft the entry, in place of any older one, and prunes the cache.

        A process that has files of the older entry open keeps them.

        Args:
            draft: a folder that `draft` yielded.
            facts: the facts that `read` returns; JSON values.
        """
        files = {path.name: describe(path, sync=True) for path in sorted(draft.iterdir())}
        write_json(draft / _ENTRY, {"facts": dict(facts), "files": files})
        _replace(self.folder, draft)
        shutil.rmtree(self.parts, ignore_errors=True)
        self.cache.prune()

    def amend(self, facts: Mapping[str, Any]) -> None:
        """Replaces the facts of a complete entry; does nothing if the cache cannot be written to."""
        with contextlib.suppress(SpectraError, OSError):
            stored = read_json_object(self.folder / _ENTRY)
            write_json(self.folder / _ENTRY, stored | {"facts": dict(facts)})


def _replace(final: Path, draft: Path) -> None:
    """Renames a folder and replaces the old one, even if another process puts one there meanwhile."""
    for _ in range(10):
        try:
            draft.rename(final)
            return
        except OSError:
            if not final.exists():
                raise
            old = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".old"))
            with contextlib.suppress(OSError):  # another process has moved it
                final.rename(old / final.name)
            shutil.rmtree(old, ignore_errors=True)
    draft.rename(final)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process deletes it
        return 0.0


def remembered_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file; that of a large file is remembered while its size, times and inode do not change.

    Raises:
        OSError: the file cannot be read.
    """
    stamp = file_stamp(path)
    if stamp[0] < _REMEMBERED:
        return str(describe(path)["sha256"])
    memory, name = cache_file("checksums.json"), str(path.resolve())
    known: dict[str, Any] = {}
    with contextlib.suppress(SpectraError):
        known = read_json_object(memory)
    match known.get(name):
        case [remembered, str(digest)] if remembered == stamp:
            return digest
    digest = str(describe(path)["sha256"])
    if settled(stamp) and file_stamp(path) == stamp:
        known.pop(name, None)
        kept = dict(list(known.items())[1 - _CHECKSUMS :]) | {name: [stamp, digest]}
        with contextlib.suppress(SpectraError, OSError):
            write_json(memory, kept)
    return digest
