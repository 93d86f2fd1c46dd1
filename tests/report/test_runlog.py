from __future__ import annotations

import json
from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_write
from spectra_nsa.report.runlog import MetricsTail, read_run, series_names, series_of, standing, terms_of
from tests.report.runs import WARNING, rows_of, run_folder


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read() == []
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert tail.read() == [{"step": 1, "loss": 2.0}]
    with path.open("ab") as file:
        file.write(b'ss": 1.0}\nnoise\n[1]\n{"no": "step"}\n')
    assert [row["step"] for row in tail.read()] == [1, 2]
    assert [row["step"] for row in tail.read()] == [1, 2]


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(5)))
    tail = MetricsTail(path)
    assert len(tail.read()) == 5
    with atomic_write(path) as file:  # a resumed run drops steps, and may be longer again before anybody looks
        file.writelines(json.dumps({"step": step, "again": True}) + "\n" for step in range(7))
    assert len(tail.read()) == 7 and all(row["again"] for row in tail.rows)


def test_what_is_no_run_and_what_has_no_rows(tmp_path: Path) -> None:
    run_folder(tmp_path / "runs" / "first")
    with pytest.raises(SpectraError, match=r"not a run.*runs/first"):
        read_run(tmp_path / "runs")
    empty = run_folder(tmp_path / "runs" / "empty", [])
    with pytest.raises(SpectraError, match=r"logged nothing yet.*spectra train"):
        read_run(empty)
    assert read_run(empty, empty=True).rows == []


def test_where_a_run_stands() -> None:
    state = standing(rows_of(ended=None), now=1080.0)
    assert (state["status"], state["step"], state["steps"]) == ("running", 40, 100)
    assert state["seconds_left"] == pytest.approx(60 * 2)  # sixty steps of two seconds
    assert standing(rows_of(ended=None), now=1090.0)["seconds_left"] == pytest.approx(110)
    assert state["terms"] == {"semantic_32": 0.75, "anchor": 0.275} and state["grad_norms"] == {"anchor": 0.5}
    assert state["throughput"]["padding_waste"] == 0.125 and state["memory"] == {"memory_gb": 1.5}
    assert state["health"] == {"rank": 80.0, "rank_share": 0.6} and state["health_first"]["rank"] == 90.0
    assert state["dev"] == {"metric": "dev_ndcg@10", "last": 0.86, "best": 0.88, "best_step": 20,
                            "kept": None, "kept_step": None}  # fmt: skip
    assert state["warnings"] == [{"step": 40, **WARNING}]
    json.dumps(state)


def test_what_is_best_and_what_is_kept() -> None:
    rows = [*rows_of(ended=None), {"step": 40, "time": 1080.0, "ended": {"reason": "finished", "kept": 40}}]
    rows.insert(2, {"step": 0, "time": 1000.0, "eval_dev_ndcg@10": 0.95})
    dev = standing(rows, now=1080.0)["dev"]
    assert (dev["best"], dev["best_step"], dev["kept"], dev["kept_step"]) == (0.95, 0, 0.86, 40)
    again = [*rows, {"step": 40, "time": 5000.0, "started": {"steps": 100}}]
    assert standing(again, now=5000.0)["dev"]["kept_step"] is None, "nothing is kept before it ends again"


def test_how_a_run_ended_and_that_it_went_on() -> None:
    rows = rows_of(ended="interrupted")
    assert standing(rows, now=0.0)["status"] == "interrupted" and standing(rows, now=0.0)["seconds_left"] is None
    again = [*rows, {"step": 40, "time": 5000.0, "started": {"steps": 100, "ends_at": 5010.0}}]
    assert standing(again, now=5000.0)["status"] == "running"
    assert standing(again, now=5000.0)["seconds_left"] == 10
    assert standing([], now=0.0)["status"] == "starting"


def test_series() -> None:
    rows = rows_of()
    assert series_of(rows, "eval_dev_ndcg@10") == [(20.0, 0.88), (40.0, 0.86)]
    assert "loss" in series_names(rows) and "started" not in series_names(rows) and "time" not in series_names(rows)
    thin = series_of(rows, "loss", most=4)
    assert len(thin) <= 5 and thin[-1] == (40.0, 1.025)
    assert set(terms_of({"step": 1, "loss": 1.0, "ranking": 0.5, "health_rank": 3.0, "gpu_memory_gb": 1.0})) == {
        "ranking"
    }
