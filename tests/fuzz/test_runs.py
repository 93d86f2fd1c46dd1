"""Run folders: logs, checkpoints, manifests, backups and what an ablation has measured. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.checksums import MANIFEST, damage, write_manifest
from spectra_nsa.report.compare import compare_runs, comparison_page, comparison_rows
from spectra_nsa.report.run_log import read_run
from spectra_nsa.report.run_page import run_page
from spectra_nsa.report.run_status import run_status
from spectra_nsa.training.runs.checkpoints import find_resume_point
from spectra_nsa.training.runs.restore import overview, restore
from spectra_nsa.training.runs.resume import RUNNING, check_state, load_running_sums, save_running_sums
from spectra_nsa.workflows.ablate.cells import ITEMS, RESULT, read_figures
from tests.fuzz.law import cases, obeys
from tests.fuzz.mutations import changed_bytes, changed_json, changed_json_file, changed_lines
from tests.report.runs import rows_of, run_folder

ROWS = rows_of(20)
STATE = {"global_step": 4, "epoch": 0.5, "max_steps": 8, "best_global_step": 4, "best_metric": 0.5, "log_history": [{}],
         "best_model_checkpoint": "x", "total_flos": 1.0, "stateful_callbacks": {}}  # fmt: skip
SUMS = {"epoch": 0, "batches": 4, "batches_in_epoch": 8, "loss": torch.tensor(1.0), "logged": 2, "skipped": 0,
        "skipped_in_a_row": 0}  # fmt: skip
MANIFEST_OF_STEP = {"schema": 1, "step": 4, "best": 4, "run": {"rows": 8}, "files": {"config.json": {"size": 2,
                    "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}}  # fmt: skip
FIGURES = {"fingerprint": "f", "results": [{"task": "sts", "value": 0.5}], "steps": 3, "seconds": 1.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    return run_folder(folder / "first", ROWS)


@pytest.fixture(scope="module")
def checkpoint(run: Path) -> Path:
    step = run / "checkpoints" / "step-4"
    step.mkdir(parents=True)
    (step / "config.json").write_text("{}")
    (step / "trainer_state.json").write_text(json.dumps(STATE))
    save_running_sums(step, SUMS)
    return step


def _show(run: Path) -> None:
    log = obeys(lambda: read_run(run))
    if log is not None:
        obeys(lambda: run_status(log.rows, now=2_000.0))
        obeys(lambda: run_page(log).render())
        obeys(lambda: comparison_rows(compare_runs(log, log)))
        obeys(lambda: comparison_page(log, log).render())


@cases(20, share=0.5)
@given(data=changed_lines(ROWS))
@example(data=b"[" * 5_000 + b"\n" + json.dumps({"step": 1, "time": 1, "started": None, "loss": "x"}).encode() + b"\n")
@example(data=b'{"step": 1}\n')
@example(data=b'{"step": 1, "time": 1, "started": {"environment": 1, "steps": "x"}, "warning": {}, "loss": 1}\n')
@example(data=b'{"step": 1, "time": 1e308, "loss": 1}\n{"step": 2, "time": 2, "ended": {}, "loss": 1}\n')
def test_metrics(run: Path, data: bytes) -> None:
    (run / "metrics.jsonl").write_bytes(data)
    _show(run)


@cases(10, share=0.2)
@given(value=changed_json(load_recipe().model_dump()))
def test_the_recipe_of_a_run(folder: Path, value: Any) -> None:
    run = folder / "second"
    if not run.is_dir():
        run_folder(run, ROWS)
    (run / "recipe.yaml").write_text(yaml.safe_dump(value))
    _show(run)


@cases(30)
@given(data=changed_json_file(MANIFEST_OF_STEP))
@example(data=json.dumps(MANIFEST_OF_STEP | {"files": {"config.json": {"size": None, "sha256": 0}}}).encode())
def test_the_manifest_of_a_checkpoint(run: Path, checkpoint: Path, data: bytes) -> None:
    (checkpoint / MANIFEST).write_bytes(data)
    assert damage(checkpoint) is None or damage(checkpoint)
    for path in (run, checkpoint):
        with contextlib.redirect_stderr(None):
            obeys(lambda path=path: find_resume_point(path))


@cases(30)
@given(data=changed_json_file(STATE))
def test_the_state_of_a_trainer(checkpoint: Path, data: bytes) -> None:
    (checkpoint / "trainer_state.json").write_bytes(data)
    obeys(lambda: check_state(checkpoint))


def _sums() -> bytes:
    import io

    file = io.BytesIO()
    torch.save(SUMS, file)
    return file.getvalue()


@cases(30)
@given(data=changed_bytes(_sums()))
def test_the_sums_of_a_checkpoint(checkpoint: Path, data: bytes) -> None:
    (checkpoint / RUNNING).write_bytes(data)
    obeys(lambda: load_running_sums(checkpoint))


class _Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_of_a_checkpoint_is_unpickled(checkpoint: Path, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    torch.save(_Attack(mark), checkpoint / RUNNING)
    obeys(lambda: load_running_sums(checkpoint))
    (checkpoint / RUNNING).write_bytes(pickle.dumps(_Attack(mark)))
    obeys(lambda: load_running_sums(checkpoint))
    assert not mark.exists()


@cases(20, share=0.5)
@given(data=changed_json_file(MANIFEST_OF_STEP | {"unit": "step-4"}))
@example(data=json.dumps({"schema": 1, "files": MANIFEST_OF_STEP["files"]}).encode())
def test_the_manifest_of_a_backup(folder: Path, data: bytes) -> None:
    unit = folder / "backup" / "first" / "step-4"
    unit.mkdir(parents=True, exist_ok=True)
    (unit / "config.json").write_text("{}")
    (unit / MANIFEST).write_bytes(data)
    obeys(lambda: overview(str(folder / "backup")))
    with contextlib.redirect_stderr(None):
        obeys(lambda: restore(str(folder / "backup"), folder / "restored"))
    shutil.rmtree(folder / "restored", ignore_errors=True)


@cases(20, share=0.5)
@given(data=changed_json_file(FIGURES))
@example(data=b"null")
@example(data=b'{"fingerprint": "f"}')
def test_the_figures_of_an_ablation(folder: Path, data: bytes) -> None:
    cell = folder / "cell"
    cell.mkdir(exist_ok=True)
    np.savez(cell / ITEMS, a=np.ones(3))
    (cell / RESULT).write_bytes(data)
    obeys(lambda: read_figures(cell, "f"))


@cases(20, share=0.5)
@given(data=changed_bytes(b"PK\x03\x04" + bytes(60)))
@example(data=b"")
@example(data=b"x")
def test_the_items_of_an_ablation(folder: Path, data: bytes) -> None:
    cell = folder / "items"
    cell.mkdir(exist_ok=True)
    (cell / RESULT).write_text(json.dumps(FIGURES))
    (cell / ITEMS).write_bytes(data)
    obeys(lambda: read_figures(cell, "f"))


def test_a_valid_checkpoint_is_found(run: Path, checkpoint: Path) -> None:
    """The changes above start from what is valid."""
    (checkpoint / "trainer_state.json").write_text(json.dumps(STATE))
    save_running_sums(checkpoint, SUMS)
    write_manifest(checkpoint, step=4, best=4, run={})
    assert find_resume_point(run).step == 4
    check_state(checkpoint)
    assert load_running_sums(checkpoint)["batches"] == 4
