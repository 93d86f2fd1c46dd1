from __future__ import annotations

import re
from pathlib import Path

from spectra_nsa.report.compare import compare_runs, comparison_page, comparison_rows, differing
from spectra_nsa.report.run_log import read_run
from spectra_nsa.report.run_page import run_page
from tests.report.runs import rows_of, run_folder
from tests.report.test_html import OpenTags


def check_self_contained(page: str) -> None:
    parser = OpenTags()
    parser.feed(page)
    assert parser.open == []
    assert "<script" not in page and not re.search(r"(src|href)=|url\(|https?://(?!www\.w3)", page)


def test_the_page_of_a_run(tmp_path: Path) -> None:
    page = run_page(read_run(run_folder(tmp_path / "first", data={"train": "<pairs>"}))).render()
    check_self_contained(page)
    for title in ("Dev metric", "Loss", "Warnings"):
        assert f"<h2>{title}" in page, title
    for title in ("Loss terms", "Optimizer", "Gradient norm of each", "Speed and memory", "Health of the vectors"):
        assert f"<summary>{title}" in page, title
    assert "padding_waste" not in page
    assert page.count("<svg") == 1 + 3 + 3 + 1 + 5 + 2
    assert "Finished at step 40 of 100" in page and "Lower train.lr." in page and "&lt;pairs&gt;" in page
    assert "3.11" in page


def test_the_page_of_a_run_that_logged_nothing(tmp_path: Path) -> None:
    page = run_page(read_run(run_folder(tmp_path / "first", []), empty=True)).render()
    check_self_contained(page)
    assert "Nothing has been logged yet" in page and "<svg" not in page


def test_a_long_run_stays_a_small_page(tmp_path: Path) -> None:
    page = run_page(read_run(run_folder(tmp_path / "long", rows_of(20_000)))).render()
    assert len(page) < 1_500_000


def test_differing_keys_are_dotted() -> None:
    first = {"a": 1, "b": {"c": 2, "d": [1]}, "e": None}
    assert differing(first, {"a": 1, "b": {"c": 3, "d": [1]}, "f": 4}) == {"b.c": (2, 3), "f": (None, 4)}


def test_comparison_of_two_runs(tmp_path: Path) -> None:
    first = read_run(run_folder(tmp_path / "first"))
    second = read_run(run_folder(tmp_path / "second", rows_of(60), train={"lr": 1e-3, "batch": 8}))
    facts = compare_runs(first, second)
    assert facts["recipe"] == {"train.lr": [1e-4, 1e-3]}
    assert facts["outcomes"]["steps"] == [40, 60] and facts["outcomes"]["dev_ndcg@10, best"] == [0.88, 0.88]
    assert facts["outcomes"]["best step"] == [20, 20] and facts["outcomes"]["health_rank"] == [80.0, 80.0]
    settings, outcomes = comparison_rows(facts)
    assert settings == [("train.lr", "1.00e-04", "0.001")]
    assert ("steps", "40", "60", "+20") in outcomes
    page = comparison_page(first, second).render()
    check_self_contained(page)
    assert page.count('class="line s1"') == page.count('class="line s0"') == 15 and "train.lr" in page


def test_a_comparison_hides_terms_and_says_when_losses_are_not_comparable(tmp_path: Path) -> None:
    first = read_run(run_folder(tmp_path / "first"))
    second = read_run(run_folder(tmp_path / "second", rows_of(60), train={"lr": 1e-4, "batch": 16}))
    facts = compare_runs(first, second)
    assert facts["notes"] == ["the losses are not comparable, because the runs differ in train.batch"]
    assert not compare_runs(first, first)["notes"]
    shown = {row[0]: row[1:] for row in comparison_rows(facts, details=False)[1]}
    assert "semantic_32" not in shown and "semantic_32" in [row[0] for row in comparison_rows(facts)[1]]
    assert shown["time"] == ("1 min 20 s", "2 min 00 s", "+40 s")
    assert shown["padding"] == ("12.5%", "12.5%", "+0.0%")


def test_runs_with_the_same_name_are_shown_by_folder(tmp_path: Path) -> None:
    runs = [read_run(run_folder(tmp_path / parent / "run")) for parent in ("a", "b")]
    page = comparison_page(*runs).render()
    assert page.count('class="line s1"') == 15 and str(tmp_path / "a" / "run") in page


def test_the_page_shows_how_experts_are_loaded(tmp_path: Path) -> None:
    experts = {"expert_max_violation_1": 0.25, "gate_entropy_1": 0.9, "expert_load_1_0": 0.6, "expert_load_1_1": 0.4}
    rows = [row | experts if "loss" in row else row for row in rows_of()]
    page = run_page(read_run(run_folder(tmp_path / "first", rows))).render()
    check_self_contained(page)
    assert "<h2>Experts" in page and "<summary>Load of the experts" in page
    assert "layer 1: share of each expert" in page and "expert_load" not in page
