"""An ablation's table, Markdown and page, from a document made by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from rich.console import Console

from spectra_nsa.report.ablation import ablation_markdown, ablation_page, ablation_table, lines, rows

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
    systems, parts = rows(document)
    assert [row.name for row in systems] == ["start", "bm25", "recipe as it is"]
    assert [row.cells[0] for row in systems] == ["0.8600", "–", "0.8700"]
    assert [row.marked for row in parts] == [[True], [False], [False]]
    assert parts[0].cells == ["+0.0200 (+0.0100 to +0.0300)*"] and parts[2].cells == ["the same"]
    assert [(row.has, row.time) for row in parts] == [("no", "1.25"), ("no", "1.25"), ("yes", "1.25")]
    shown = text_of(document)
    assert "3 seeds × 30 steps on 1,000 rows, measured at 64 dimensions" in shown and "head alone" in shown


def test_two_metrics_fit_a_narrow_terminal(document: dict[str, Any]) -> None:
    (metric,) = document["metrics"]
    document["metrics"].append(metric | {"name": "test"})
    document["parts"][0]["effects"].append(effect("test", "spearman", -0.3, 0.01, 0.9))
    shown = text_of(document, width=100)
    assert "…" not in shown and all(one in shown for one in ("spectral", "-0.3000", "(-0.3100", "-0.2900)"))
    assert all(len(line) <= 100 for line in shown.splitlines())


def test_what_would_show_half_a_point(document: dict[str, Any]) -> None:
    assert any("0.0123; 0.005 would take 11 seeds" in line for line in lines(document))
    (metric,) = document["metrics"]
    metric |= {"target_seeds": None, "target_items": 20_000}
    assert any("20,000 items or more, not 1,500" in line for line in lines(document))
    metric |= {"smallest": 0.004, "target_items": None}
    assert any("0.005 would be found" in line for line in lines(document))
    metric |= {"smallest": None}  # nothing was judged
    assert len(lines(document)) == 2


def test_one_seed_is_said_to_cover_no_others(document: dict[str, Any]) -> None:
    alone = copy.deepcopy(document) | {"seeds": [0]}
    assert "say nothing of other seeds" in lines(alone)[1] and "--seeds 3" in lines(alone)[1]
    assert "other seeds and other items" in lines(document)[1]


def test_markdown(document: dict[str, Any]) -> None:
    said = ablation_markdown(document).splitlines()
    table = [line for line in said if line.startswith("|")]
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1, "every row has every column"
    assert any(line.startswith("| spectral | no | **+0.0200") for line in table)
    assert said[-1].startswith("Note: left out: gate_lr.")


def test_page(document: dict[str, Any]) -> None:
    page = ablation_page(document).render()
    assert page.count("<svg") == 1 and "what spectral is" in page and "<script" not in page
    assert "anchor" in page and "with − without, spearman" in page
