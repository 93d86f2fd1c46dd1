"""What the commands that start runs say of how a run ended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from spectra_nsa.cli.runs import best_figures, lost_terms, warn_if_not_better
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.training.run import RunResult

RESULT = RunResult(
    folder=Path("runs/a"), model=None, steps=9, first_step=0, seconds=1.0, pairs_per_second=None,
    best={"dev_ndcg@10": 0.8}, start={"dev_ndcg@10": 0.7}, ended="finished", quarantined=0, interrupted=False,
)  # fmt: skip


def test_a_figure_below_the_start_is_not_called_the_best() -> None:
    assert best_figures(RESULT, 2) == ", best dev_ndcg@10 0.80 (0.70 at the start)"
    assert best_figures(replace(RESULT, best={"dev_ndcg@10": 0.2}), 2) == ", dev_ndcg@10 0.20, below the start's 0.70"
    same = replace(RESULT, best={"dev_ndcg@10": 0.7})
    assert best_figures(same, 2) == ", dev_ndcg@10 0.70, no better than the start's 0.70"
    assert best_figures(replace(RESULT, start={}), 2) == ", best dev_ndcg@10 0.80"


@pytest.mark.parametrize(
    ("words", "last", "remedy"),
    [
        (["sparse.document_active=null", "loss.terms.document_flops.weight=9"], 2, "lower loss.terms.document_flops"),
        (["sparse.document_active=12"], 5, "raise sparse.document_active"),
        (["sparse.document_active=12"], 11, ""),
        (["sparse.document_active=null"], 60, ""),
    ],
)
def test_lost_terms_name_what_keeps_them(
    tmp_path: Path, words: list[str], last: float, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe(None, ["sparse.query_active=40", *words])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    rows = [
        {"step": step, "time": 1.0, "health_query_active": 38.0, "health_document_active": float(active)}
        for step, active in ((0, 88), (9, last))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lost = lost_terms(tmp_path, recipe)
    if not remedy:
        assert lost == ""
        return
    assert lost.startswith(f"a document has {last} active terms, 88 at the start: {remedy}")
    warn_if_not_better({"dev_ndcg@10": 0.2}, {"dev_ndcg@10": 0.7}, lost)
    said = capsys.readouterr().err
    assert said.index(remedy) < said.index("train.lr")


def test_a_dense_run_has_no_terms_to_lose(tmp_path: Path) -> None:
    assert lost_terms(tmp_path, load_recipe(None, [])) == ""
