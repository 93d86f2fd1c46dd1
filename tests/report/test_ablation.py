"""The table, the Markdown and the page of an ablation, from a document written by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from rich.console import Console

from spectra_nsa.report.ablation import ablation_markdown, ablation_page, ablation_table, reading_notes, table_rows

COST = {"seconds_per_step": 1.25, "ms_per_text": 1.1, "gpu_memory_gb": None, "parameters": 1.02}


def effect(name: str, metric: str, value: float, half: float, p: float) -> dict[str, Any]:
    ci = [value - half, value + half]
    return {"task": "sts", "name": name, "metric": metric, "value": value, "ci": ci, "p_holm": p}


def part(name: str, cell: str, effects: list[dict[str, Any]], verdict: str) -> dict[str, Any]:
    return {"part": name, "cell": cell, "says": f"what {name} is", "changes": {"train.lr": 0.1}, "apart": not effects,
            "same": not effects, "cost": COST, "effects": effects, "verdict": verdict}  # fmt: skip


@pytest.fixture
def document() -> dict[str, Any]:
    metric = {"task": "sts", "name": "dev", "metric": "spearman", "n": 1500, "recipe": {"value": 0.87},
              "baselines": {"start": 0.86, "bm25": None}, "smallest": 0.0123, "target": 0.005, "target_seeds": 11,
              "target_items": None}  # fmt: skip
    return {
        "created": "2026-01-01T00:00:00", "environment": {}, "recipe": {"model": {"start": "checkpoint", "size": None}},
        "seeds": [0, 1, 2], "steps": 30, "rows": 1000, "dim": 64, "notes": ["left out: gate_lr"], "metrics": [metric],
        "parts": [
            part("spectral", "with-spectral", [effect("dev", "spearman", 0.02, 0.01, 0.01)], "helps"),
            part("conv", "with-conv", [effect("dev", "spearman", -0.001, 0.01, 0.9)], "no difference seen"),
            part("anchor", "without-anchor", [], "head alone"),
        ],
    }  # fmt: skip


def text_of(document: dict[str, Any], width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(ablation_table(document))
    return capture.get()


def test_baselines_come_first_and_only_findings_are_marked(document: dict[str, Any]) -> None:
    systems, parts = table_rows(document)
    assert [row.name for row in systems] == ["start", "bm25", "recipe as it is"]
    assert [row.cells[0] for row in systems] == ["0.8600", "–", "0.8700"]
    assert [row.marked for row in parts] == [[True], [False], [False]]
    assert parts[0].cells == ["+0.0200 (+0.0100 to +0.0300)*"] and parts[2].cells == ["the same"]
    assert [(row.in_recipe, row.time) for row in parts] == [("no", "1.25"), ("no", "1.25"), ("yes", "1.25")]
    shown = text_of(document)
    assert "3 seeds × 30 steps on 1,000 rows, measured at 64 dimensions" in shown and "head alone" in shown


def test_two_metrics_fit_a_narrow_terminal(document: dict[str, Any]) -> None:
    (metric,) = document["metrics"]
    document["metrics"].append(metric | {"name": "test"})
    document["parts"][0]["effects"].append(effect("test", "spearman", -0.3, 0.01, 0.9))
    shown = text_of(document, width=100)
    assert "…" not in shown and all(text in shown for text in ("spectral", "-0.3000", "(-0.3100", "-0.2900)"))
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_active_terms_fit_a_narrow_terminal(document: dict[str, Any]) -> None:
    assert len(table_rows(document)[0][0].texts()) == 5
    document["active"] = {"recipe": {"query": 39.96, "document": 151.2}}
    document["parts"][0] |= {"part": "document_df_flops", "active": {"query": -0.04, "document": 12.5}}
    systems, parts = table_rows(document)
    assert [row.active for row in (*systems, *parts)] == [["–"], ["–"], ["40.0, 151.2"], ["+0.0, +12.5"], ["–"], ["–"]]
    shown = text_of(document, width=80)
    assert all(text in shown for text in ("document_df_flops", "40.0,", "151.2", "(+0.0100", "+0.0300)*"))
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert any(line.startswith("Terms:") for line in reading_notes(document))
    assert "| 40.0, 151.2 |" in ablation_markdown(document) and "40.0, 151.2" in ablation_page(document).render()


def test_notes_say_what_would_detect_a_smaller_effect(document: dict[str, Any]) -> None:
    assert any("0.0123; detecting 0.005 would take 11 seeds" in line for line in reading_notes(document))
    (metric,) = document["metrics"]
    metric |= {"target_seeds": None, "target_items": 20_000}
    assert any("at least 20,000 items, and there are 1,500" in line for line in reading_notes(document))
    metric |= {"smallest": 0.004, "target_items": None}
    assert any("0.005 would be detected" in line for line in reading_notes(document))
    metric |= {"smallest": None}  # no effect was tested
    assert len(reading_notes(document)) == 2


def test_notes_on_one_seed_warn_about_other_seeds(document: dict[str, Any]) -> None:
    one_seed = copy.deepcopy(document) | {"seeds": [0]}
    assert "intervals over items only" in reading_notes(one_seed)[1] and "--seeds 3" in reading_notes(one_seed)[1]
    assert "over seeds and items" in reading_notes(document)[1]


def test_markdown_has_every_column_in_every_row(document: dict[str, Any]) -> None:
    lines = ablation_markdown(document).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1, "every row has every column"
    assert any(line.startswith("| spectral | no | **+0.0200") for line in table)
    assert lines[-1].startswith("Note: left out: gate_lr.")


def test_page_has_the_effects_and_no_script(document: dict[str, Any]) -> None:
    page = ablation_page(document).render()
    assert page.count("<svg") == 1 and "what spectral is" in page and "<script" not in page
    assert "anchor" in page and "with − without, spearman" in page
