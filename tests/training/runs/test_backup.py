"""Backups: copies are complete, failures are retried and reported, and training is never disturbed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.core.checksums import damage, write_manifest
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.training.runs.backup import ATTEMPTS, Backup
from spectra_nsa.training.runs.backup_store import Store, checkpoint_unit
from spectra_nsa.training.runs.checkpoints import delete_old_checkpoints
from spectra_nsa.training.runs.restore import overview, restore


class Failing(MemoryFileSystem):
    """A file system in memory that can fail, corrupt what is written, and wait."""

    protocol = "failing"
    store: dict[str, Any] = {}
    pseudo_dirs: list[str] = [""]
    failures = 0
    spoil = 0
    gate: threading.Event | None = None

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        kind = type(self)
        if "w" in mode and kind.gate is not None:
            kind.gate.wait(30)
        if "w" in mode and kind.failures:
            kind.failures -= 1
            raise ConnectionError("the line is down")
        file = super()._open(path, mode, **options)
        if "w" in mode and kind.spoil:
            kind.spoil -= 1
            file.write(b"noise")
        return file


fsspec.register_implementation("failing", Failing, clobber=True)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    for kind in (Failing, MemoryFileSystem):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]
    Failing.failures, Failing.spoil, Failing.gate = 0, 0, None


def checkpoint(run: Path, step: int, best: int | None = None) -> Path:
    """A folder like a checkpoint, in a folder like a run."""
    folder = run / "checkpoints" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes([step]) * 3_000_000)
    write_manifest(folder, step=step, best=best)
    (run / "recipe.yaml").write_text("{}\n")
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": step}) + "\n")
    return folder


def backup_of(run: Path, url: str, **options: Any) -> Backup:
    return Backup(Store(url, run.name), run, **{"every": 1, "keep": 2, "wait": 30, "first_wait": 0.01, **options})


@pytest.mark.parametrize("kind", ["memory", "file", "folder"])
def test_what_is_kept_and_restored(tmp_path: Path, kind: str) -> None:
    url = {"memory": "memory://there", "file": f"file://{tmp_path}/there", "folder": str(tmp_path / "there")}[kind]
    run = tmp_path / "run"
    backup = backup_of(run, url, keep=1)
    (best := checkpoint(run, 1, best=1))
    for step in range(1, 5):
        last = best if step == 1 else checkpoint(run, step, best=1)
        backup.saved(last, best)
        while backup.pending():
            time.sleep(0.005)
    (run / "model").mkdir()
    (run / "model" / "config.json").write_text("{}")
    tally = backup.finish(best, model=True)
    assert tally.failures == 0 and tally.lost == []
    (found,) = overview(url)
    assert [unit["name"] for unit in found["units"]] == ["step-1", "step-4", "model"]
    assert [unit["best"] for unit in found["units"]] == [True, False, False]
    facts = restore(url, tmp_path / "back")
    assert facts == {"run": str(tmp_path / "back"), "step": 4, "units": ["step-4", "step-1", "model"]}
    back = tmp_path / "back"
    assert damage(back / "checkpoints" / "step-4") is None and damage(back / "checkpoints" / "step-1") is None
    assert (back / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert (back / "model" / "config.json").is_file()


def test_every_nth_checkpoint_is_copied_and_the_last(tmp_path: Path) -> None:
    run = tmp_path / "run"
    backup = backup_of(run, "memory://there", every=3, keep=9)
    for step in range(1, 6):
        backup.saved(checkpoint(run, step), None)
        while backup.pending():
            time.sleep(0.005)
    backup.finish(None, model=False)
    assert list(Store("memory://there", "run").units()) == ["step-3", "step-5"]


@pytest.mark.parametrize("trouble", ["failures", "spoil"])
def test_failures_are_retried_and_counted(tmp_path: Path, trouble: str, capsys: pytest.CaptureFixture[str]) -> None:
    setattr(Failing, trouble, 3)
    run = tmp_path / "run"
    backup = backup_of(run, "failing://there")
    backup.saved(checkpoint(run, 1), None)
    tally = backup.finish(None, model=False)
    assert tally.failures == 3 and tally.lost == [] and tally.copied == ["step-1"]
    assert capsys.readouterr().err.count("retrying") == 3
    assert restore("failing://there", tmp_path / "back")["step"] == 1


def test_a_copy_that_never_succeeds_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Failing.failures = 10**9
    run = tmp_path / "run"
    backup = backup_of(run, "failing://there")
    backup.saved(checkpoint(run, 1), None)
    while backup.pending():
        time.sleep(0.005)
    assert backup.tally.failures == ATTEMPTS and backup.tally.lost == ["step-1"]
    assert "step-1 was not copied" in capsys.readouterr().err
    Failing.failures = 0
    backup.saved(checkpoint(run, 2), None)  # the next one has its chance
    assert backup.finish(None, model=False).copied == ["step-2"]


def test_training_does_not_wait_and_what_is_copied_stays(tmp_path: Path) -> None:
    Failing.gate = threading.Event()
    run = tmp_path / "run"
    backup = backup_of(run, "failing://there")
    began = time.monotonic()
    for step in range(1, 5):
        backup.saved(checkpoint(run, step), None)
        while step == 1 and len(backup.pending()) == 1 and backup._at_work is None:
            time.sleep(0.005)
        delete_old_checkpoints(run, keep=1, protected=backup.pending())
    assert time.monotonic() - began < 5
    assert [path.name for path in sorted((run / "checkpoints").glob("step-*"))] == ["step-1", "step-4"]
    Failing.gate.set()
    tally = backup.finish(None, model=False)
    assert tally.copied == ["step-1", "step-4"] and tally.superseded == 2


def test_the_wait_at_the_end_is_limited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Failing.gate = threading.Event()
    run = tmp_path / "run"
    backup = backup_of(run, "failing://there", wait=0.2)
    checkpoint(run, 1)
    began = time.monotonic()
    assert backup.finish(None, model=False).lost == ["step-1"]
    assert time.monotonic() - began < 5 and "not finished after" in capsys.readouterr().err
    Failing.gate.set()


def test_a_partial_copy_does_not_count(tmp_path: Path) -> None:
    run, url = tmp_path / "run", str(tmp_path / "there")
    store = Store(url, "run")
    first, second = (checkpoint_unit(run, checkpoint(run, step)) for step in (1, 2))
    for name in first.files:
        store.send(first, name)
    store.commit(first)
    for name in second.files:
        store.send(second, name)
    assert list(store.units()) == ["step-1"]
    arrived = tmp_path / "there" / "run" / ".incoming" / "step-2" / "recipe.yaml"
    target = tmp_path / "there" / "run" / "step-2" / "recipe.yaml"
    target.parent.mkdir()
    arrived.rename(target)  # the manifest comes last: the copy was stopped while files took their names
    assert list(store.units()) == ["step-1"] and restore(url, tmp_path / "back")["step"] == 1
    store.commit(second)
    assert list(store.units()) == ["step-1", "step-2"]


def test_a_damaged_copy_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, url = tmp_path / "run", str(tmp_path / "there")
    backup = backup_of(run, url)
    for step in (1, 2):
        backup.saved(checkpoint(run, step), None)
        while backup.pending():
            time.sleep(0.005)
    backup.finish(None, model=False)
    weights = tmp_path / "there" / "run" / "step-2" / "checkpoints" / "step-2" / "model.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    assert restore(url, tmp_path / "back")["units"] == ["step-1"]
    assert "step-2" in capsys.readouterr().err
    assert not (tmp_path / "back" / "checkpoints" / "step-2").exists()
    (tmp_path / "there" / "run" / "step-1" / "recipe.yaml").unlink()
    with pytest.raises(SpectraError, match=r"every checkpoint at .* is damaged"):
        restore(url, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_steps_that_ran_again_replace_their_copies(tmp_path: Path) -> None:
    run, again = tmp_path / "a" / "run", tmp_path / "b" / "run"
    first = backup_of(run, "memory://there", keep=9)
    for step in (2, 9):
        first.saved(checkpoint(run, step), None)
        while first.pending():
            time.sleep(0.005)
    second = backup_of(again, "memory://there", keep=9)
    second.saved(checkpoint(again, 5), None)
    second.finish(None, model=False)
    assert list(Store("memory://there", "run").units()) == ["step-2", "step-5"]


def test_several_runs_need_a_name(tmp_path: Path) -> None:
    for name in ("one", "two"):
        checkpoint(tmp_path / name, 1)
        backup_of(tmp_path / name, str(tmp_path / "there")).finish(None, model=False)
    with pytest.raises(UsageError, match="several runs"):
        restore(str(tmp_path / "there"), tmp_path / "back")
    assert restore(str(tmp_path / "there" / "two"), tmp_path / "back")["step"] == 1
    with pytest.raises(SpectraError, match="not empty"):
        restore(str(tmp_path / "there" / "two"), tmp_path / "back")
    run = CliRunner().invoke(app, ["backup", "list", str(tmp_path / "there"), "--json"], catch_exceptions=False)
    assert [one["run"] for one in json.loads(run.stdout)["runs"]] == ["one", "two"]
