"""Checksums of files and texts, and manifests by which a folder is checked: names, sizes and SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import read_json, write_json

MANIFEST = "manifest.json"
SCHEMA = 1
_CHUNK = 1 << 20
_INTACT: dict[Path, dict[str, list[int]]] = {}  # folders that matched their manifest, with the stamps of their files
FRESH = 2.0  # seconds within which a file may change without a new time of change


def sha256_of(file: IO[bytes]) -> str:
    """Returns the hexadecimal SHA-256 of the rest of an open file."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def describe(path: Path, *, sync: bool = False) -> dict[str, Any]:
    """Returns size and SHA-256 of a file.

    Args:
        path: the file.
        sync: whether its bytes are first flushed to the disk.
    """
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        return {"size": path.stat().st_size, "sha256": sha256_of(file)}


def write_manifest(folder: Path, **facts: Any) -> None:
    """Writes `manifest.json`: every file below `folder` with size and SHA-256, and `facts` beside them.

    Everything is flushed to the disk, so that the folder can be renamed next.
    """
    files = {name: describe(folder / name, sync=True) for name in _names(folder)}
    write_json(folder / MANIFEST, {"schema": SCHEMA, **facts, "files": files})
    for inner in {(folder / name).parent for name in files} | {folder}:
        sync_folder(inner)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the manifest of a folder.

    Raises:
        SpectraError: it is missing, is not a manifest, or has a schema that this version does not know.
    """
    return check_manifest(read_json(folder / MANIFEST), str(folder / MANIFEST))


def check_manifest(manifest: Any, where: str) -> dict[str, Any]:
    """Returns a parsed manifest after checking that it is one and names no file outside its folder.

    Args:
        manifest: the parsed JSON.
        where: its path or address, for the message.

    Raises:
        SpectraError: see `read_manifest`.
    """
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise SpectraError(f"{where} is not a manifest: it has no table of files.")
    if manifest.get("schema") != SCHEMA:
        raise SpectraError(
            f"{where} has schema {manifest.get('schema')}, but this version reads schema {SCHEMA}. "
            "Use the version of spectra-nsa that wrote it."
        )
    for name, entry in manifest["files"].items():
        parts = name.split("/")
        if not all(parts) or ".." in parts or "\\" in name or ":" in parts[0]:
            raise SpectraError(f"{where} lists {name!r}, which is not a file inside its folder.")
        facts = (entry.get("size"), entry.get("sha256")) if isinstance(entry, Mapping) else (None, None)
        if type(facts[0]) is not int or not isinstance(facts[1], str):
            raise SpectraError(f"{where} gives no size and SHA-256 for {name}.")
    return manifest


def damage(folder: Path) -> str | None:
    """Describes in a few words how a folder differs from its manifest; returns ``None`` if it does not.

    Its files are hashed once per process, and again only after one of them has changed.
    """
    try:
        files = read_manifest(folder)["files"]
    except SpectraError as error:
        return (
            "it has no manifest.json (unfinished, or written by an older version)"
            if not (folder / MANIFEST).is_file()
            else str(error).rstrip(".")
        )
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size:,} bytes instead of {entry['size']:,}"
    stamps = {name: file_stamp(folder / name) for name in (MANIFEST, *files)}
    if _INTACT.get(folder.resolve()) == stamps:
        return None
    for name, entry in files.items():  # sizes first: they show most damage, and reading is slow
        try:
            digest = describe(folder / name)["sha256"]
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if digest != entry["sha256"]:
            return f"{name} does not match the SHA-256 in its manifest"
    if all(map(settled, stamps.values())):
        _INTACT[folder.resolve()] = stamps
    return None


def file_stamp(path: Path) -> list[int]:
    """Returns the size, times of change (of content and of inode, in ns) and inode of a file.

    Raises:
        OSError: there is no such file.
    """
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def settled(stamp: Sequence[int]) -> bool:
    """Returns whether a file's stamp is old enough that a later change would alter it."""
    return time.time_ns() - max(stamp[1:3]) > FRESH * 1e9


def texts_sha256(texts: Iterable[str]) -> str:
    """Returns the SHA-256 of texts in their order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)} {text}".encode())
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flushes a folder's list of names to the disk, if the system can open folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST:
            yield name
