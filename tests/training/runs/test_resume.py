"""Resuming: from which checkpoint, with which changes, and what is refused before anything is trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spectra_nsa.cli.train import _plan, _plan_text
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core import checksums
from spectra_nsa.core.checksums import damage, write_manifest
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.files import locked_folder
from spectra_nsa.training.loop.arguments import steps_of
from spectra_nsa.training.run import RunResult, train
from spectra_nsa.training.runs.backup_store import Store
from spectra_nsa.training.runs.checkpoints import delete_old_checkpoints, finalize_checkpoint, find_resume_point
from tests.builders import WORDS


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"anchor": f"{a} {b}", "positive": f"{b} {a}"} for a in WORDS[:7] for b in WORDS[8:16]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, start: Path, pairs: Path) -> Callable[..., Recipe]:
    base = [
        f"output={tmp_path_factory.mktemp('runs')}", "name=run", f"model.start={start}", f"data.train={pairs}",
        "data.dev_rows=8", "train.batch=8", "train.checkpoint_every=2", "train.evaluate_every=2", "train.log_every=1",
        "train.lr=1e-3", "train.precision=fp32", "train.keep_checkpoints=99", "loss.temperature_start=0.1",
    ]  # fmt: skip
    return lambda *more: load_recipe(None, [*base, *more])


@pytest.fixture(scope="module")
def trained(recipe: Callable[..., Recipe]) -> RunResult:
    """A run of one epoch: six steps, with checkpoints 2, 4 and 6."""
    result = train(recipe("name=run"))
    assert result.steps == 6
    return result


@pytest.fixture
def whole(trained: RunResult, tmp_path: Path) -> Path:
    """A copy of that run, free to change."""
    shutil.copytree(trained.folder, tmp_path / "run")
    return tmp_path / "run"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def logged(folder: Path, *keys: str) -> list[tuple[Any, ...]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [tuple(row[key] for key in keys) for row in rows if set(keys) <= set(row)]


def truncate(run: Path, step: int) -> None:
    """Deletes what comes after a step, as if the run had been killed there."""
    shutil.rmtree(run / "model", ignore_errors=True)
    for checkpoint in (run / "checkpoints").glob("step-*"):
        if int(checkpoint.name[5:]) > step:
            shutil.rmtree(checkpoint)


def test_a_damaged_checkpoint_is_skipped(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = weights(whole)
    (whole / "checkpoints" / "step-6" / "optimizer.pt").write_bytes(b"half")
    resumed = train(None, resume=whole)
    told = capsys.readouterr().err
    assert "step-6, which is damaged: optimizer.pt has 4 bytes" in told and "aside-step-6" in told
    assert resumed.first_step == 4 and resumed.steps == 6
    torch.testing.assert_close(weights(whole), before, rtol=0, atol=0)
    assert damage(whole / "checkpoints" / "step-6") is None


def test_a_checkpoint_is_hashed_once_per_resume(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truncate(whole, 4)
    old = {path for path in whole.rglob("checkpoints/*/*") if path.name != "manifest.json"}
    hashed: Counter[Path] = Counter()
    original = checksums.sha256_of

    def counting(file: Any) -> str:
        hashed[Path(file.name)] += 1
        return original(file)

    monkeypatch.setattr(checksums, "sha256_of", counting)
    monkeypatch.setattr(checksums, "FRESH", 0.0)
    train(None, resume=whole)
    counts = {path: hashed[path] for path in old if path.parent.name == "step-4" or hashed[path]}
    assert counts and set(counts.values()) == {1}


def test_a_damaged_checkpoint_that_is_named_is_refused(whole: Path) -> None:
    for step in (2, 4, 6):
        (whole / "checkpoints" / f"step-{step}" / "scheduler.pt").unlink()
    with pytest.raises(SpectraError, match=r"step-4 is damaged: scheduler.pt is missing"):
        find_resume_point(whole / "checkpoints" / "step-4")
    with pytest.raises(SpectraError, match=r"every checkpoint of .* is damaged"):
        find_resume_point(whole)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.depth_mix=true", "different from the recipe's: .*depth_mix was False, is True"),
        ("model.entity=true", "different from the recipe's: .*entity was False, is True"),
        ("model.pooling=cls", "different from the recipe's: .*pooling was mean, is cls"),
        ("data.limit=40", "rows was 48, is 32"),
        ("train.batch=4", r"train.batch was 8, is 4\. The position"),
        ("train.seed=5", r"train.seed was 0, is 5\. The position"),
    ],
)
def test_a_different_model_or_data_is_refused(whole: Path, change: str, said: str) -> None:
    known = load_recipe(whole / "recipe.yaml")
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=said):
        train(load_recipe(whole / "recipe.yaml", [change]), resume=whole)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
    assert load_recipe(whole / "recipe.yaml") == known


def test_a_different_tokenizer_of_the_same_size_is_refused(whole: Path, start: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(start, other)
    for file in other.rglob("tokenizer.json"):  # two words trade their places
        file.write_text(
            file.read_text().replace('"open"', '"x"').replace('"close"', '"open"').replace('"x"', '"close"')
        )
    with pytest.raises(UsageError, match=r"different from .*its tokenizer has different pieces.*model\.tokenizer"):
        train(load_recipe(whole / "recipe.yaml", [f"model.start={other}"]), resume=whole)


def test_as_many_but_different_rows_are_refused(whole: Path, tmp_path: Path, pairs: Path) -> None:
    (tmp_path / "other.jsonl").write_text(pairs.read_text().replace("open", "opened"))
    with pytest.raises(UsageError, match="as many rows, but different ones"):
        train(load_recipe(whole / "recipe.yaml", [f"data.train={tmp_path}/other.jsonl"]), resume=whole)


def test_a_locked_run_is_refused(whole: Path) -> None:
    with locked_folder(whole), pytest.raises(UsageError, match="another process is using"):
        train(resume=whole)


def test_a_run_killed_before_its_first_checkpoint_starts_over(whole: Path, tmp_path: Path) -> None:
    before = weights(whole)
    shutil.copytree(whole, tmp_path / "moved")
    truncate(tmp_path / "moved", 0)
    (tmp_path / "moved" / "checkpoints" / ".writing" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "moved" / ".recipe.yaml.x.tmp").write_text("half")
    resumed = train(None, resume=tmp_path / "moved")
    assert (resumed.first_step, resumed.steps) == (0, 6)
    torch.testing.assert_close(weights(tmp_path / "moved"), before, rtol=0, atol=0)
    assert logged(tmp_path / "moved", "step", "loss") == logged(whole, "step", "loss")
    assert not list((tmp_path / "moved").glob(".*.tmp"))


def test_more_epochs_follow_the_longer_schedule(whole: Path, recipe: Callable[..., Recipe]) -> None:
    longer = train(recipe("name=longer", "train.epochs=3"))
    resumed = train(load_recipe(whole / "recipe.yaml", ["train.epochs=3"]), resume=whole)
    assert resumed.first_step == 6 and resumed.steps == longer.steps == 18
    for key in ("learning_rate", "temperature"):
        now, reference = logged(whole, "step", key), logged(longer.folder, "step", key)
        assert now[6:] == reference[6:] and now[:6] != reference[:6]


def test_keys_that_may_change_do_change(whole: Path, recipe: Callable[..., Recipe]) -> None:
    more = ["train.epochs=2", "train.lr=2e-3", "train.checkpoint_every=3", "train.evaluate_every=1"]
    reference = train(recipe("name=other", *more))
    train(load_recipe(whole / "recipe.yaml", more), resume=whole)
    assert logged(whole, "step", "learning_rate")[6:] == logged(reference.folder, "step", "learning_rate")[6:]
    steps = {path.name for path in (whole / "checkpoints").glob("step-*")}
    assert steps == {"step-2", "step-4", "step-6", "step-9", "step-12"}
    assert len(logged(whole, "eval_dev_ndcg@10")) == 1 + 3 + 6 + 1  # the last measures the finished model


@pytest.mark.parametrize(("change", "said"), [("train.epochs=1", " of 6"), ("train.max_steps=3", ", beyond 3")])
def test_a_run_that_has_ended_takes_no_step(
    whole: Path, change: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = weights(whole)
    shutil.rmtree(whole / "model")
    resumed = train(load_recipe(whole / "recipe.yaml", [change]), resume=whole)
    assert resumed.steps == resumed.first_step == 6
    told = capsys.readouterr().err
    assert f"{whole}: already at step 6{said}: no step to take; model/ is written" in told and "steps on" not in told
    torch.testing.assert_close(weights(whole), before, rtol=0, atol=0)


def test_a_dry_run_says_where_a_run_would_resume(whole: Path) -> None:
    longer = load_recipe(whole / "recipe.yaml", ["train.epochs=3"])
    checkpoints = whole / "checkpoints"
    for recipe, resume, step, said in (
        (longer, whole, 6, "Resuming from step 6 of 18."),
        (longer, checkpoints / "step-2", 2, "Resuming from step 2 of 18."),
        (load_recipe(whole / "recipe.yaml"), whole, 6, "Already at step 6 of 6: no step to take."),
    ):
        plan = _plan(recipe, resume)
        assert plan["first_step"] == step and f" {said} Nothing was trained." in _plan_text(plan)
    truncate(whole, 0)
    assert "Starting over, as there is no checkpoint yet. Nothing" in _plan_text(_plan(longer, whole))
    new = _plan(load_recipe(whole / "recipe.yaml", ["name=new"]))
    assert new["first_step"] is None and "step to take" not in _plan_text(new)
    assert "6 steps (train.epochs=" in _plan_text(new) and "note: 6 steps are few for a training" in _plan_text(new)


def test_the_start_line_counts_the_steps_that_are_taken(
    recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    odd = recipe("name=odd", "train.accumulation=4", "train.epochs=2")  # six batches: a step of four, and one of two
    assert train(odd).steps == steps_of(odd, 48) == 4
    assert ": 4 steps on 48 rows" in capsys.readouterr().err


def test_resuming_from_an_earlier_checkpoint_renames_the_later_ones(whole: Path) -> None:
    checkpoints = whole / "checkpoints"
    before = {path.name for path in checkpoints.iterdir()}
    train(load_recipe(whole / "recipe.yaml", ["train.max_steps=3"]), resume=checkpoints / "step-2")
    now = {path.name for path in checkpoints.iterdir()}
    assert before == {"step-2", "step-4", "step-6"}
    assert now == {"step-2", "step-3", "aside-step-4", "aside-step-6"}


def test_a_moved_run_keeps_its_best_checkpoint(whole: Path, tmp_path: Path) -> None:
    state = json.loads((whole / "checkpoints" / "step-4" / "trainer_state.json").read_text())
    state |= {"best_metric": 2.0, "best_global_step": 2}  # nothing later can be better
    moved = tmp_path / "else" / "where"
    shutil.copytree(whole, moved)
    truncate(moved, 4)
    (moved / "checkpoints" / "step-4" / "trainer_state.json").write_text(json.dumps(state))
    facts = json.loads((moved / "checkpoints" / "step-4" / "manifest.json").read_text())
    write_manifest(moved / "checkpoints" / "step-4", step=4, run=facts["run"])
    shutil.rmtree(whole)
    resumed = train(None, resume=moved)
    assert resumed.best == {"dev_ndcg@10": 1.0}  # measured again, not taken from the state
    best = load_file(moved / "checkpoints" / "step-2" / "model.safetensors")
    torch.testing.assert_close(weights(moved), best, rtol=0, atol=0)


class Harm:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "running.pt", "rng_state.pth"])
def test_no_file_of_a_checkpoint_runs_code(whole: Path, tmp_path: Path, name: str) -> None:
    checkpoint = whole / "checkpoints" / "step-6"
    run = json.loads((checkpoint / "manifest.json").read_text())["run"]
    torch.save({"x": Harm(tmp_path / "harm")}, checkpoint / name)
    write_manifest(checkpoint, step=6, run=run)  # the harm is signed, as it would be
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        train(load_recipe(whole / "recipe.yaml", ["train.epochs=2"]), resume=whole)
    assert not (tmp_path / "harm").exists()


def test_no_checkpoint_is_half_deleted_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "checkpoints"
    for step in (1, 2, 3):
        (root / f"step-{step}").mkdir(parents=True)
        (root / f"step-{step}" / "old").touch()
    (tmp_path / "written").mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed as it begins to delete
    delete_old_checkpoints(tmp_path, keep=2, protected=[root / "step-1"])
    assert sorted(path.name for path in root.glob("step-*")) == ["step-1", "step-3"]
    finalize_checkpoint(tmp_path / "written", root / "step-3")
    assert not list((root / "step-3").iterdir())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Trains with one thread, as the processes of `run_spectra` do, so that sums are equal to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_lost_run_is_restored_and_resumed(
    recipe: Callable[..., Recipe],
    tmp_path: Path,
    run_spectra: Callable[..., subprocess.CompletedProcess[str]],
    one_thread: None,
) -> None:
    there = tmp_path / "drive"
    result = train(recipe("name=mine", f"backup.to={there}", "backup.every=1", "backup.keep=9"))
    assert result.backup is not None and not result.backup.lost
    units = Store(str(there), "mine").units()
    assert {"step-2", "step-6", "model"} <= set(units) <= {"step-2", "step-4", "step-6", "model"}
    before, log = weights(result.folder), logged(result.folder, "step", "loss")
    shutil.rmtree(result.folder)
    with pytest.raises(SpectraError, match="spectra backup restore"):
        train(recipe("name=mine", f"backup.to={there}"))
    for name in set(units) - {"step-2"}:  # the machine went away after the first copy
        shutil.rmtree(there / "mine" / name)
    run = str(tmp_path / "runs" / "mine")
    done = run_spectra("backup", "restore", str(there), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"schema": 1, "run": "runs/mine", "step": 2, "units": ["step-2"]}
    done = run_spectra("train", "--resume", "runs/mine", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["steps"] == 6 and facts["backup"]["lost"] == [] and facts["run"] == "runs/mine"
    torch.testing.assert_close(weights(Path(run)), before, rtol=0, atol=0)
    assert logged(Path(run), "step", "loss") == log
    assert {"step-6", "model"} <= set(Store(str(there), "mine").units())


def test_a_destination_that_always_fails_never_fails_the_run(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    more = ["name=failing", f"backup.to={tmp_path}/file/below", "backup.every=1", "backup.wait_seconds=1"]
    result = train(recipe(*more, "train.epochs=3"))
    assert result.steps == 18 and result.backup is not None and result.backup.failures and result.backup.lost
    assert (result.folder / "model").is_dir()
    counted = logged(result.folder, "step", "backup_failures")
    assert counted and [count for _, count in counted] == sorted(count for _, count in counted)
