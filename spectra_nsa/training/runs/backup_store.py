"""The destination of backups: units of files at an fsspec address, each complete by its manifest or absent."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from spectra_nsa.core.checksums import MANIFEST, SCHEMA, check_manifest, describe, read_manifest, sha256_of
from spectra_nsa.core.errors import SpectraError, UsageError, missing_extra
from spectra_nsa.training.runs.checkpoints import step_of

INCOMING = ".incoming"
_CHUNK = 1 << 20
_SMALL = ("recipe.yaml", "metrics.jsonl")  # of the run, read when the unit is made, since they keep changing


@dataclass(frozen=True)
class Unit:
    """Files that are copied and restored together.

    Attributes:
        name: `step-N` or `model`.
        files: name in the run's folder → size and SHA-256.
        contents: name → the file to copy, or its bytes.
        source: the checkpoint; ``None`` for a model.
        facts: further entries of the manifest, such as the step and the best step so far.
    """

    name: str
    files: Mapping[str, Mapping[str, Any]]
    contents: Mapping[str, Path | bytes]
    source: Path | None
    facts: Mapping[str, Any]

    @property
    def manifest(self) -> bytes:
        """The manifest as stored."""
        value = {"schema": SCHEMA, "unit": self.name, **self.facts, "files": self.files}
        return (json.dumps(value, indent=2) + "\n").encode()


def checkpoint_unit(folder: Path, checkpoint: Path) -> Unit:
    """Returns the unit of a checkpoint, with the run's recipe and log as they are now."""
    manifest = read_manifest(checkpoint)
    below = checkpoint.relative_to(folder).as_posix()
    contents: dict[str, Path | bytes] = {
        name: (folder / name).read_bytes() for name in _SMALL if (folder / name).is_file()
    }
    contents[f"{below}/{MANIFEST}"] = (checkpoint / MANIFEST).read_bytes()
    files: dict[str, Any] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in contents.items()
        if isinstance(data, bytes)
    }
    for name, entry in manifest["files"].items():
        files[f"{below}/{name}"] = entry
        contents[f"{below}/{name}"] = checkpoint / name
    facts = {"step": manifest["step"], "best": manifest.get("best")}
    return Unit(checkpoint.name, files, contents, checkpoint, facts)


def model_unit(folder: Path) -> Unit:
    """Returns the unit of the finished model."""
    paths = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    contents = {path.relative_to(folder).as_posix(): path for path in paths}
    return Unit("model", {name: describe(path) for name, path in contents.items()}, contents, None, {})


class Store:
    """The backups of one run.

    Args:
        root: a folder, or an address with a protocol that fsspec knows.
        run: the run's name; ``None`` if `root` is the run's own address.

    Raises:
        UsageError: no such protocol.
        SpectraError: fsspec, or what it needs for the protocol, is not installed.
    """

    def __init__(self, root: str, run: str | None) -> None:
        self.fs, path = open_address(root)
        path = path.rstrip("/")
        self.path = f"{path}/{run}" if run else path
        self.run = self.path.rpartition("/")[2]
        self.address = f"{root.rstrip('/')}/{run}" if run else root

    def units(self) -> dict[str, dict[str, Any]]:
        """Returns the manifests of the complete units by name; checkpoints oldest first, then the model."""
        names = [name for name in _folders(self.fs, self.path) if name == "model" or name.startswith("step-")]
        steps = sorted((name for name in names if name != "model"), key=lambda name: step_of(Path(name)))
        manifests = {name: self._manifest(name) for name in [*steps, *(["model"] if "model" in names else [])]}
        return {name: manifest for name, manifest in manifests.items() if manifest is not None}

    def holds(self, unit: Unit) -> bool:
        """Returns whether the same unit is there already; its recipe and log may be older."""
        manifest = self._manifest(unit.name)
        same = {name: entry for name, entry in unit.files.items() if name not in _SMALL}
        return manifest is not None and {n: e for n, e in manifest["files"].items() if n not in _SMALL} == same

    def begin(self, unit: Unit) -> None:
        """Deletes what an earlier copy of that name has left."""
        self.remove(unit.name)
        self._remove_folder(f"{self.path}/{INCOMING}")

    def send(self, unit: Unit, name: str) -> None:
        """Copies a file, reads it back and compares it.

        Raises:
            OSError: the copy differs.
        """
        self._write(self._incoming(unit, name), unit.contents[name], unit.files[name])

    def commit(self, unit: Unit) -> None:
        """Gives the unit its name, the manifest last; may be repeated after it has failed half-way."""
        self._write(self._incoming(unit, MANIFEST), unit.manifest, None)
        for name in [*unit.files, MANIFEST]:
            arrived, final = self._incoming(unit, name), f"{self.path}/{unit.name}/{name}"
            if self.fs.exists(arrived):
                self.fs.makedirs(final.rpartition("/")[0], exist_ok=True)
                self.fs.mv(arrived, final)
        self._remove_folder(f"{self.path}/{INCOMING}")

    def delete_old(self, keep: int, newest: str) -> None:
        """Deletes all checkpoints but `newest`, the `keep - 1` before it, and the best one that it names.

        Later checkpoints are deleted too: the run has resumed before them, and their steps ran again.
        """
        units = self.units()
        steps = [name for name in units if name != "model"]
        until = steps[: steps.index(newest) + 1]
        stay = {*until[-keep:], f"step-{units[newest].get('best')}"}
        for name in steps:
            if name not in stay:
                self.remove(name)

    def remove(self, name: str) -> None:
        """Deletes a unit, its manifest first, so that a partial one does not count."""
        manifest = f"{self.path}/{name}/{MANIFEST}"
        if self.fs.exists(manifest):
            self.fs.rm(manifest)
        self._remove_folder(f"{self.path}/{name}")

    def fetch(self, name: str, manifest: Mapping[str, Any], folder: Path) -> None:
        """Copies a unit's files into a run's folder, and compares each.

        Raises:
            SpectraError: one is missing, cannot be read, or does not match the manifest.
        """
        for file, entry in manifest["files"].items():
            target, address = folder / file, f"{self.path}/{name}/{file}"
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            try:
                with self.fs.open(address, "rb") as source, target.open("wb") as out:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        out.write(chunk)
            except Exception as error:  # each backend has its own
                raise SpectraError(f"{name}/{file} cannot be read: {type(error).__name__}: {error}") from error
            if digest.hexdigest() != entry["sha256"]:
                raise SpectraError(f"the SHA-256 of {name}/{file} does not match the manifest")

    def _incoming(self, unit: Unit, name: str) -> str:
        return f"{self.path}/{INCOMING}/{unit.name}/{name}"

    def _manifest(self, name: str) -> dict[str, Any] | None:
        self.fs.invalidate_cache()
        address = f"{self.path}/{name}/{MANIFEST}"
        if not self.fs.exists(address):
            return None
        try:
            return check_manifest(json.loads(self.fs.cat_file(address)), address)
        except ValueError:  # not JSON, or not a manifest: the unit does not count
            return None

    def _write(self, address: str, content: Path | bytes, entry: Mapping[str, Any] | None) -> None:
        self.fs.makedirs(address.rpartition("/")[0], exist_ok=True)
        with _reader(content) as source, self.fs.open(address, "wb") as out:
            while chunk := source.read(_CHUNK):
                out.write(chunk)
        self.fs.invalidate_cache()
        with self.fs.open(address, "rb") as file:
            copied = sha256_of(file)
        expected = entry["sha256"] if entry is not None else hashlib.sha256(content).hexdigest()  # type: ignore[arg-type]
        if copied != expected:
            raise OSError(f"{address} was not copied correctly: its SHA-256 differs")

    def _remove_folder(self, path: str) -> None:
        self.fs.invalidate_cache()
        if self.fs.exists(path):
            self.fs.rm(path, recursive=True)


def runs_at(root: str) -> list[Store]:
    """Returns the runs with backups at an address: the run itself if it is a run's address, else those below it."""
    store = Store(root, None)
    if store.units():
        return [store]
    below = [Store(root, name) for name in _folders(store.fs, store.path) if not name.startswith(".")]
    return [run for run in below if run.units()]


def open_address(address: str) -> tuple[Any, str]:
    """Returns fsspec's file system for an address and the path on it; raises what `Store` does."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise missing_extra("fsspec", "data") from error
    try:
        return url_to_fs(address)
    except ImportError as error:
        raise SpectraError(f"{address}: {error}. Install it with pip, or name a folder.") from error
    except ValueError as error:
        raise UsageError(f"{address} is neither a folder nor an address that fsspec knows: {error}.") from error


def _folders(fs: Any, path: str) -> list[str]:
    fs.invalidate_cache()
    try:
        entries = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise SpectraError(f"{path} is a file, not a folder of backups.") from error
    return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory")


def _reader(content: Path | bytes) -> IO[bytes]:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
