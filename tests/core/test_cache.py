"""The cache: entries are complete or absent, known by their content's facts, and never a reason to fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spectra_nsa.core import cache as module
from spectra_nsa.core.cache import Cache, Entry, cache_file, cache_folder, remembered_sha256
from spectra_nsa.core.checksums import describe


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spectra-nsa"


def fill(entry: Entry, text: str = "content", **facts: object) -> Path:
    with entry.draft() as draft:
        (draft / "file").write_text(text)
        entry.commit(draft, facts)
    return entry.folder / "file"


def test_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("rows") == Path("~/.cache/spectra-nsa/rows").expanduser()


def test_the_same_facts_are_the_same_entry() -> None:
    cache = Cache("kind", keep=2)
    assert cache.entry(a=1, b="x").folder == cache.entry(b="x", a=1).folder
    others = [cache.entry(a=1), cache.entry(a="1"), cache.entry(b=1), cache.entry(a=1, b=None)]
    assert len({entry.folder for entry in others}) == 4


def test_facts_are_read_back(root: Path) -> None:
    entry = Cache("kind", keep=2).entry(a=1)
    assert entry.read() is None and not root.exists()
    fill(entry, rows=3)
    assert entry.read() == {"rows": 3} and entry.read(rows=3) == {"rows": 3} and entry.read(rows=4) is None
    entry.amend({"rows": 4})
    assert entry.read() == {"rows": 4}


@pytest.mark.parametrize("name", ["file", "entry.json"])
@pytest.mark.parametrize("damage", [b"", b"CONTENT", b"[1]", None])
def test_a_damaged_entry_counts_as_absent(name: str, damage: bytes | None) -> None:
    entry = Cache("kind", keep=2).entry(a=1)
    path = fill(entry).with_name(name)
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert entry.read() is None
    assert fill(entry).read_text() == "content" and entry.read() == {}


def test_a_draft_that_is_not_committed_leaves_nothing(root: Path) -> None:
    entry = Cache("kind", keep=2).entry(a=1)
    with pytest.raises(KeyboardInterrupt), entry.draft() as draft:
        (draft / "file").write_text("x")
        raise KeyboardInterrupt
    assert not list((root / "kind").iterdir()) and entry.read() is None


def test_a_new_entry_replaces_the_older_one_and_its_parts(root: Path) -> None:
    entry = Cache("kind", keep=2).entry(a=1)
    fill(entry, "old")
    entry.parts.mkdir()
    assert fill(entry, "new").read_text() == "new"
    assert [path.name for path in (root / "kind").iterdir()] == [entry.folder.name]


def test_the_entries_used_last_stay(root: Path) -> None:
    entries = [Cache("kind", keep=9).entry(number=number) for number in range(3)]
    for age, entry in enumerate(entries):
        fill(entry)
        os.utime(entry.folder, (1000 - age, 1000 - age))  # the first is the newest of them
    (root / "kind" / "of-an-older-version.npy").write_text("x")
    assert entries[2].read() is not None
    Cache("kind", keep=2).prune()
    assert {path.name for path in (root / "kind").iterdir()} == {entries[0].folder.name, entries[2].folder.name}


def test_unfinished_folders_of_killed_processes_go_after_a_day(root: Path) -> None:
    for name, age in (("old", 2), ("new", 0)):
        folder = root / "kind" / f".{name}.tmp"
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
        for path in (folder / "file", folder):
            os.utime(path, (path.stat().st_mtime - age * 86_400,) * 2)
    Cache("kind", keep=1).prune()
    assert [path.name for path in (root / "kind").iterdir()] == [".new.tmp"]


def test_a_relative_xdg_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder("rows") == tmp_path / ".cache/spectra-nsa/rows"


def test_each_part_of_the_cache_that_cannot_be_written_to_is_replaced(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in place of a folder, and no home folder at all."""
    root.mkdir(parents=True)
    (root / "blocked").touch()
    assert cache_folder("free").parent == root and cache_folder("blocked").parent != root
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", str)  # as if the user had no home folder
    assert cache_folder("free").is_absolute() and cache_file("last.json").parent.parent.is_dir()
    assert capsys.readouterr().err.count("warning") == 2


def test_a_cache_that_cannot_be_written_to_costs_a_warning(tmp_path: Path) -> None:
    """Work goes on in a folder that is gone when the process ends."""
    (tmp_path / "file").write_text("")
    code = """
from spectra_nsa.core.cache import Cache, cache_folder
for number in range(2):
    entry = Cache("kind", keep=2).entry(number=number)
    with entry.draft() as draft:
        (draft / "file").write_text("x")
        entry.commit(draft, {})
    assert entry.read() == {}
print(cache_folder("kind"))
"""
    variables = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "file")}
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("warning") == 1 and "XDG_CACHE_HOME" in run.stderr
    assert not Path(run.stdout.strip()).parent.exists()


def test_the_checksum_of_a_large_file_is_remembered_until_it_changes(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    monkeypatch.setattr("spectra_nsa.core.checksums.FRESH", 0.0)
    hashed: list[Path] = []

    def counted(path: Path, **options: bool) -> dict[str, object]:
        hashed.append(path)
        return describe(path, **options)

    monkeypatch.setattr(module, "describe", counted)
    path = tmp_path / "weights"
    path.write_text("one")
    first = remembered_sha256(path)
    assert remembered_sha256(path) == first == describe(path)["sha256"] and len(hashed) == 1
    before = path.stat()
    path.write_text("two")  # of the same size, and then of the same time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert remembered_sha256(path) == describe(path)["sha256"] != first and len(hashed) == 2
    (root / "checksums.json").write_text("[")
    assert remembered_sha256(path) == describe(path)["sha256"] and len(hashed) == 3
    assert list(json.loads((root / "checksums.json").read_text())) == [str(path)]


def test_the_checksum_of_a_file_just_written_is_not_remembered(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    path = tmp_path / "weights"
    path.write_text("one")
    remembered_sha256(path)
    assert not (root / "checksums.json").exists()
