from __future__ import annotations

import json

import pytest

from spectra_nsa.report.run_status import run_status, seconds_running
from tests.report.runs import WARNING, rows_of


def test_the_epoch_is_that_of_the_last_step() -> None:
    rows = [*rows_of(ended=None), {"step": 41, "time": 1082.0, "ended": {"reason": "interrupted"}}]
    assert run_status(rows, now=1082.0)["epoch"] == pytest.approx(4.1)


def test_status_of_a_running_run() -> None:
    state = run_status(rows_of(ended=None), now=1080.0)
    assert (state["status"], state["step"], state["steps"]) == ("running", 40, 100)
    assert state["seconds_left"] == pytest.approx(60 * 2)  # sixty steps of two seconds
    assert run_status(rows_of(ended=None), now=1090.0)["seconds_left"] == pytest.approx(110)
    assert state["terms"] == {"semantic_32": 0.75, "anchor": 0.275} and state["grad_norms"] == {"anchor": 0.5}
    assert state["throughput"]["padding_waste"] == 0.125 and state["memory"] == {"memory_gb": 1.5}
    assert state["health"] == {"rank": 80.0, "rank_share": 0.6} and state["health_first"]["rank"] == 90.0
    assert state["dev"] == {"metric": "dev_ndcg@10", "last": 0.86, "best": 0.88, "best_step": 20,
                            "kept": None, "kept_step": None}  # fmt: skip
    assert state["warnings"] == [{"step": 40, **WARNING}]
    json.dumps(state)


def test_best_and_kept_step_may_differ() -> None:
    rows = [*rows_of(ended=None), {"step": 40, "time": 1080.0, "ended": {"reason": "finished", "kept": 40}}]
    rows.insert(2, {"step": 0, "time": 1000.0, "eval_dev_ndcg@10": 0.95})
    dev = run_status(rows, now=1080.0)["dev"]
    assert (dev["best"], dev["best_step"], dev["kept"], dev["kept_step"]) == (0.95, 0, 0.86, 40)
    again = [*rows, {"step": 40, "time": 5000.0, "started": {"steps": 100}}]
    assert run_status(again, now=5000.0)["dev"]["kept_step"] is None, "no step is kept before it ends again"


def test_status_of_an_ended_and_of_a_resumed_run() -> None:
    rows = rows_of(ended="interrupted")
    assert run_status(rows, now=0.0)["status"] == "interrupted" and run_status(rows, now=0.0)["seconds_left"] is None
    again = [*rows, {"step": 40, "time": 5000.0, "started": {"steps": 100, "ends_at": 5010.0}}]
    assert run_status(again, now=5000.0)["status"] == "running"
    assert run_status(again, now=5000.0)["seconds_left"] == 10
    assert run_status([], now=0.0)["status"] == "starting"


def test_a_pause_before_resuming_is_no_running_time() -> None:
    times = [(0.0, "started"), (10.0, "loss"), (12.0, "ended"), (9_000.0, "started"), (9_030.0, "loss")]
    assert seconds_running([{"step": 0, "time": time, key: {}} for time, key in times]) == 42
