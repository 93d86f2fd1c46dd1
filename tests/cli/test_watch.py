"""`spectra monitor` and `spectra compare`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.core.console import console
from spectra_nsa.core.errors import SpectraError, UsageError
from tests.report.runs import rows_of, run_folder


@pytest.fixture(autouse=True)
def own_console() -> None:
    """The shared console writes where standard output was when it was made."""
    console.cache_clear()


def output(*arguments: str) -> str:
    run = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "150"}, catch_exceptions=False)
    assert run.exit_code == 0
    return run.stdout


def test_one_frame_and_its_json(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "first")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "lo')  # the trainer is in the middle of a line
    text = output("monitor", str(folder), "--once", "--all")
    assert "first  finished  step 40 of 100" in text and "semantic_32" in text and "Lower train.lr" in text
    state = json.loads(output("monitor", str(folder), "--json"))
    assert state["schema"] == 1 and state["status"] == "finished" and state["dev"]["best"] == 0.88
    assert state["warnings"][0]["kind"] == "collapse"


def test_what_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(SpectraError, match="not a run"):
        output("monitor", str(tmp_path / "gone"))
    with pytest.raises(SpectraError, match="logged nothing yet"):
        output("monitor", str(run_folder(tmp_path / "empty", [])), "--once")


def test_a_run_whose_process_is_gone_does_not_respond(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    rows = rows_of(ended=None)
    for pid, host, status in (
        (child.pid, socket.gethostname(), "lost"),
        (os.getpid(), socket.gethostname(), "running"),
        (child.pid, "another", "running"),
    ):
        rows[0]["started"] |= {"pid": pid, "host": host}
        folder = run_folder(tmp_path / f"{pid}-{host}", rows)
        assert json.loads(output("monitor", str(folder), "--json"))["status"] == status
    rows[0]["started"] |= {"pid": child.pid, "host": socket.gethostname()}
    text = output("monitor", str(run_folder(tmp_path / "followed", rows)))  # following it ends
    assert "not responding" in text and "spectra train --resume" in text


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "first", [])

    def train() -> None:
        with (folder / "metrics.jsonl").open("a") as file:
            for row in rows_of():
                file.write(json.dumps(row) + "\n")
                file.flush()
                time.sleep(0.02)

    writer = threading.Thread(target=train)
    writer.start()
    text = output("monitor", str(folder), "--every", "0.2")
    writer.join()
    assert "finished  step 40 of 100" in text


def test_comparing_runs(tmp_path: Path) -> None:
    one = run_folder(tmp_path / "one")
    other = run_folder(tmp_path / "other", rows_of(60), train={"lr": 1e-3, "batch": 8})
    page = tmp_path / "compare.html"
    text = output("compare", str(one), str(other), "--html", str(page))
    assert "train.lr" in text and "1.00e-04" in text and "dev_ndcg@10, best" in text and "+20" in text
    assert page.read_text().count("<svg") == 15
    facts = json.loads(output("compare", str(one), str(other), "--json"))
    assert facts["recipe"] == {"train.lr": [1e-4, 1e-3]} and facts["outcomes"]["steps"] == [40, 60]
    assert "the recipes are the same" in output("compare", str(one), str(one))


def test_comparing_models(tmp_path: Path) -> None:
    facts = json.loads(output("compare", "small", "mini", "--json"))
    assert facts["models"] == ["small", "mini"] and facts["differences"]["shape.layers"] == [4, 6]
    assert "shape.norm" not in facts["differences"]
    assert "FLOPs per token" in output("compare", "small", "mini")
    assert "no difference in shape" in output("compare", "small", "small")


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    run = str(run_folder(tmp_path / "one"))
    with pytest.raises(UsageError, match="is a run, but mini is not"):
        output("compare", run, "mini")
    with pytest.raises(UsageError, match="is a folder"):
        output("compare", run, run, "--html", str(tmp_path))
    with pytest.raises(UsageError, match="draws training curves"):
        output("compare", "mini", "small", "--html", str(tmp_path / "a.html"))
