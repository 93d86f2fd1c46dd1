from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_write
from spectra_nsa.report.run_log import MetricsTail, read_run, series_names, series_of, terms_of
from tests.report.runs import rows_of, run_folder


def test_an_unfinished_line_is_left_for_the_next_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read() == []
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert tail.read() == [{"step": 1, "loss": 2.0}]
    with path.open("ab") as file:
        file.write(b'ss": 1.0}\nnoise\n[1]\n{"no": "step"}\n')
    assert [row["step"] for row in tail.read()] == [1, 2]
    assert [row["step"] for row in tail.read()] == [1, 2]


def test_null_is_a_number_that_is_not_finite(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": null}\n')
    (row,) = MetricsTail(tmp_path / "metrics.jsonl").read()
    assert math.isnan(row["loss"])


def test_a_replaced_file_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(5)))
    tail = MetricsTail(path)
    assert len(tail.read()) == 5
    with atomic_write(path) as file:  # a resumed run drops rows, and may have written more than before by the next read
        file.writelines(json.dumps({"step": step, "again": True}) + "\n" for step in range(7))
    assert len(tail.read()) == 7 and all(row["again"] for row in tail.rows)


def test_folders_that_are_not_runs_and_runs_without_rows(tmp_path: Path) -> None:
    run_folder(tmp_path / "runs" / "first")
    with pytest.raises(SpectraError, match=r"not a run.*runs/first"):
        read_run(tmp_path / "runs")
    empty = run_folder(tmp_path / "runs" / "empty", [])
    with pytest.raises(SpectraError, match=r"logged nothing yet.*spectra train"):
        read_run(empty)
    assert read_run(empty, empty=True).rows == []


def test_series_of_a_key() -> None:
    rows = rows_of()
    assert series_of(rows, "eval_dev_ndcg@10") == [(20.0, 0.88), (40.0, 0.86)]
    assert "loss" in series_names(rows) and "started" not in series_names(rows) and "time" not in series_names(rows)
    thin = series_of(rows, "loss", most=4)
    assert len(thin) <= 5 and thin[-1] == (40.0, 1.025)
    assert set(terms_of({"step": 1, "loss": 1.0, "ranking": 0.5, "health_rank": 3.0, "gpu_memory_gb": 1.0})) == {
        "ranking"
    }
