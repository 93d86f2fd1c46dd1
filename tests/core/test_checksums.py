"""Manifests: every kind of damage is named, and no manifest leads out of its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectra_nsa.core import checksums
from spectra_nsa.core.checksums import MANIFEST, check_manifest, damage, read_manifest, sha256_of, write_manifest
from spectra_nsa.core.errors import SpectraError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "inner" / "b.txt").write_text("b")
    write_manifest(tmp_path, step=3)
    return tmp_path


def test_a_manifest_says_what_is_there(folder: Path) -> None:
    found = read_manifest(folder)
    assert found["step"] == 3 and set(found["files"]) == {"a.bin", "inner/b.txt"}
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, of "abc"
    assert found["files"]["a.bin"] == {"size": 3, "sha256": known}
    assert damage(folder) is None


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "a.bin").write_bytes(b"abd"), "a.bin does not match the SHA-256"),
        (lambda folder: (folder / "a.bin").write_bytes(b"ab"), "a.bin has 2 bytes instead of 3"),
        (lambda folder: (folder / "inner" / "b.txt").unlink(), "inner/b.txt is missing"),
        (lambda folder: (folder / MANIFEST).unlink(), "no manifest.json"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "not JSON"),
        (lambda folder: (folder / MANIFEST).write_text("[]"), "not a manifest"),
        (lambda folder: (folder / MANIFEST).write_text('{"schema": 9, "files": {}}'), "schema 9"),
    ],
)
def test_damage_is_named(folder: Path, harm: Callable[[Path], object], said: str) -> None:
    harm(folder)
    assert said in (damage(folder) or "")


def test_files_are_hashed_again_only_after_a_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counting(file: Any) -> str:
        hashed.append(Path(file.name).name)
        return sha256_of(file)

    monkeypatch.setattr(checksums, "sha256_of", counting)
    assert damage(folder) is None and damage(folder) is None
    assert sorted(hashed) == ["a.bin", "a.bin", "b.txt", "b.txt"], "files this young may change without a new stamp"
    monkeypatch.setattr(checksums, "FRESH", 0.0)
    hashed.clear()
    assert damage(folder) is None and damage(folder) is None
    assert sorted(hashed) == ["a.bin", "b.txt"]
    (folder / "a.bin").write_bytes(b"abd")
    assert "a.bin does not match" in (damage(folder) or "")
    (folder / "a.bin").write_bytes(b"abc")
    assert damage(folder) is None


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a//b", "a/../../b", "C:/x", "a\\b"])
def test_a_manifest_names_no_file_elsewhere(name: str) -> None:
    text = json.dumps({"schema": 1, "files": {name: {"size": 0, "sha256": ""}}})
    with pytest.raises(SpectraError, match="not a file inside its folder"):
        check_manifest(json.loads(text), "m")
