from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from spectra_nsa.report.run_log import terms_of
from spectra_nsa.report.run_view import run_view
from tests.report.runs import rows_of


def shown(rows: list[dict[str, Any]], width: int = 160, **options: Any) -> str:
    console = Console(width=width, record=True, force_terminal=False, file=None, quiet=False)
    with console.capture() as captured:
        console.print(run_view(rows, name="first", now=1080.0, **options))
    return captured.get()


def test_the_view_shows_everything() -> None:
    text = shown(rows_of(ended=None), details=True)
    for part in (
        "first", "running", "step 40 of 100", "2 min 00 s left", "semantic_32", "anchor", "gradient 0.5",
        "learning rate", "temperature", "gradient norm", "pairs/s", "12.5%", "25.0%", "memory (GB)",
        "effective rank ÷ its maximum", "first 90",
        "dev_ndcg@10", "best 0.8800 at step 20", "⚠ step 40: effective rank 1.0. Lower train.lr.",
    ):  # fmt: skip
        assert part in text, part
    assert any(bar in text for bar in "▁▂▃▄▅▆▇█")


def test_a_best_step_that_is_not_kept_has_its_own_line() -> None:
    rows = rows_of(ended=None)
    end = {"step": 40, "time": 1080.0, "ended": {"reason": "finished", "kept": 40}}
    text = shown([rows[0], {"step": 0, "time": 1000.0, "eval_dev_ndcg@10": 0.95}, *rows[1:], end])
    assert "best 0.9500 before training" in text
    kept = next(line for line in text.splitlines() if "in model/" in line)
    assert "0.8600" in kept and "from step 40" in kept
    assert "in model/" not in shown([*rows, end | {"ended": {"reason": "finished", "kept": 20}}]), (
        "the best step is the kept one"
    )


def test_the_embeddings_term_stands_before_the_sum() -> None:
    lines = [line.strip() for line in shown(rows_of(ended=None)).splitlines()]
    at = next(at for at, line in enumerate(lines) if line.startswith("loss"))
    assert lines[at - 1].startswith("semantic_32") and "all terms" in lines[at]


def test_the_summary_is_short_and_shows_faults() -> None:
    rows = [*rows_of(ended=None), {"step": 40, "time": 1080.0, "health_rank_share": 0.6, "health_non_finite": 3}]
    text = shown(rows, width=80)
    assert "anchor" not in text and "NaN or infinite vectors" in text and "…" not in text
    assert text.splitlines()[0].rstrip().endswith("━") and len(text.splitlines()) < 12 and "near-duplicate" not in text


@pytest.mark.parametrize("rows", [[], rows_of()[:1], rows_of()[:2], rows_of()[:3]], ids=len)
def test_a_run_that_has_just_started(rows: list[dict[str, Any]]) -> None:
    assert "first" in shown(rows)


def test_narrow_terminals_and_overridden_step_and_status() -> None:
    text = shown(rows_of(ended=None), width=80, wide=False, details=True, step=41, status="lost")
    assert "not responding" in text and "step 41" in text and "left" not in text.splitlines()[0]
    assert all(len(line) <= 80 for line in text.splitlines())


def test_many_warnings_are_counted() -> None:
    rows = rows_of(ended=None)
    text = shown([*rows, *([rows[-1]] * 6)])
    assert text.count("⚠") == 4 and "3 earlier warnings" in text


def test_experts_have_their_own_rows_and_are_no_loss_terms() -> None:
    rows = rows_of(ended=None)
    experts = {
        "expert_max_violation_1": 0.25,
        "expert_max_violation_2": 0.5,
        "gate_entropy_1": 0.9,
        "gate_entropy_2": 0.8,
    }
    experts |= {f"expert_load_{layer}_{expert}": 0.5 for layer in (1, 2) for expert in (0, 1)}
    rows = [row | experts if "loss" in row else row for row in rows]
    text = shown(rows, details=True)
    line = next(line for line in text.splitlines() if "fullest expert" in line)
    assert "+50.0%" in line and "in layer 2" in line
    assert "gate entropy 0.8" in text and "expert_load" not in text
    assert not any(name.startswith(("expert", "gate")) for name in terms_of(rows[-1]))
