"""A file is whole or absent, and what cannot be written says so before it is tried."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spectra_nsa.core.checksums import write_manifest
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import (
    atomic_folder,
    atomic_write,
    expand_user,
    locked_folder,
    read_json,
    read_json_object,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_is_there_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.txt"
    with atomic_write(path) as file:
        file.write("größer")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "größer"
    assert names(path.parent) == ["file.txt"]


def test_a_file_is_flushed_to_the_disk_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda number: flushed.append((os.fstat(number).st_size, path.exists())))
    with atomic_write(path) as file:
        file.write("text")
    assert flushed == [(4, False)]


def test_everything_in_a_manifest_is_flushed_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("file", "inner/file"):
        (tmp_path / name).write_text(name)
    flushed = set()
    monkeypatch.setattr(os, "fsync", lambda number: flushed.add(os.fstat(number).st_ino))
    write_manifest(tmp_path)
    assert flushed == {path.stat().st_ino for path in (tmp_path, *tmp_path.rglob("*"))}


def test_bytes(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file", "wb") as file:
        file.write(b"\x00\xff")
    assert (tmp_path / "file").read_bytes() == b"\x00\xff"


def test_the_umask_decides_the_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write("")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "for the owner").write_text("")
            (folder / "for the owner").chmod(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "folder" / "for the owner").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_a_block_that_raises_leaves_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "file"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("")
    with atomic_folder(path) as temporary:
        (temporary / "new").write_text("")
        assert names(path) == ["old"]
    assert names(path) == ["new"] and names(tmp_path) == ["folder"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_folder_whose_block_raises_stays_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("")
    with pytest.raises(error), atomic_folder(path) as temporary:
        (temporary / "new").write_text("")
        raise error
    assert names(path) == ["old"] and names(tmp_path) == ["folder"]


def test_the_old_folder_comes_back_when_the_renaming_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"), atomic_folder(path) as temporary:
        (temporary / "new").write_text("")
    assert names(path) == ["old"] and names(tmp_path) == ["folder"]


def test_a_folder_without_permission_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(SpectraError, match=r"no permission\. Choose another output folder") as caught:
        write_json(tmp_path / "file.json", {})
    assert str(tmp_path) in str(caught.value) and not isinstance(caught.value, UsageError)
    with pytest.raises(SpectraError, match="no permission"), atomic_folder(tmp_path / "folder"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == []


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SpectraError, match=r"cannot create the folder .*taken"):
        write_json(tmp_path / "taken" / "file.json", {})


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"name": "Größe", "list": [1, 2.5, None], "deep": {"a": True}}
    write_json(tmp_path / "file.json", value)
    text = (tmp_path / "file.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "file.json") == value
    assert "Größe" in text and text.endswith("}\n")


def test_what_is_not_json_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", {"value": object()})
    assert names(tmp_path) == []


def test_broken_json_is_located(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{\n  "a": 1,\n  "b" 2\n}')
    with pytest.raises(SpectraError, match=r"file\.json, line 3, column 7: not JSON"):
        read_json(path)


def test_a_missing_file_and_wrong_bytes(tmp_path: Path) -> None:
    with pytest.raises(SpectraError, match=r"gone\.json does not exist"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "latin.json").write_bytes('"größe"'.encode("latin-1"))
    with pytest.raises(SpectraError, match=r"latin\.json: not UTF-8 at byte 3"):
        read_json(tmp_path / "latin.json")


def test_a_held_folder_is_refused_until_it_is_let_go(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from spectra_nsa.core.files import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])): print('in')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with locked_folder(tmp_path / "run"):
        other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.returncode == 1 and "another process is using" in other.stderr and not other.stdout
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "in\n"
    assert names(tmp_path / "run") == []


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"a": float("nan"), "b": [float("inf"), 1.0]})
    assert read_json(tmp_path / "file.json") == {"a": None, "b": [None, 1.0]}


def test_a_device_is_written_to_and_a_link_followed(tmp_path: Path) -> None:
    """Neither is replaced by a file."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    for path in (link, Path("/dev/null")):
        with atomic_write(path) as file:
            file.write("text")
    assert link.is_symlink() and (tmp_path / "file").read_text() == "text"
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_names_the_file() -> None:
    with pytest.raises(SpectraError, match="cannot write /dev/full: No space left"):
        write_json("/dev/full", {"a": "b" * 100_000})


def test_a_file_in_place_of_a_folder_and_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a folder"):
        write_json(tmp_path, {})
    for attempt in (lambda: write_json(tmp_path / "file" / "a.json", {}), lambda: read_json(tmp_path)):
        with pytest.raises(SpectraError, match=r"file|read"):
            attempt()
    with pytest.raises(SpectraError, match="cannot create"), locked_folder(tmp_path / "file" / "inner"):
        pass


def test_a_name_that_is_not_utf8_survives_json(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"path": "n\udcff"})
    assert (tmp_path / "file").read_bytes().decode("utf-8")
    assert read_json(tmp_path / "file") == {"path": "n\udcff"}


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5_000, "[1]", "null"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    """Nested too deep, a number of too many digits, and other values."""
    (tmp_path / "file").write_text(text)
    with pytest.raises(SpectraError):
        read_json_object(tmp_path / "file")


def test_the_home_of_an_unknown_user_stays_as_it_is() -> None:
    assert expand_user("~nosuchuser/x") == Path("~nosuchuser/x")
