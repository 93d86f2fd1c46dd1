"""A synthetic run folder with the rows that a training would log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

WARNING = {"kind": "collapse", "message": "effective rank 1.0.", "remedy": "Lower train.lr."}


def rows_of(steps: int = 40, *, ended: str | None = "finished", dev: str = "ndcg@10") -> list[dict[str, Any]]:
    """Returns the rows of a run with two terms, a dev metric, health and one warning; a step takes two seconds."""

    def row(step: int, **values: Any) -> dict[str, Any]:
        return {"step": step, "time": 1000.0 + 2 * step, **values}

    rows = [row(0, started={"steps": 100, "pid": 2**22 + 1, "host": "elsewhere", "environment": {"python": "3.11"}})]
    rows.append(row(0, health_rank=90.0, health_rank_share=0.7, epoch=0))
    for step in range(2, steps + 1, 2):
        rows.append(
            row(step, loss=1 + 1 / step, semantic_32=0.75, anchor=0.25 + 1 / step, grad_norm=2.0, grad_norm_anchor=0.5,
                learning_rate=1e-4, temperature=0.05, epoch=step / 10, pairs_per_second=40.0, tokens_per_second=2000.0,
                padding_waste=0.125, matmul_share=0.25, memory_gb=1.5)
        )  # fmt: skip
        if step % 20 == 0:
            rows.append(row(step, health_rank=80.0, health_rank_share=0.6))
            rows.append(row(step, **{f"eval_dev_{dev}": 0.9 - step / 1000, "eval_runtime": 1.0}))
    rows.append(row(steps, warning=WARNING))
    return rows + ([row(steps, ended={"reason": ended})] if ended else [])


def run_folder(folder: Path, rows: list[dict[str, Any]] | None = None, **recipe: Any) -> Path:
    """Writes `recipe.yaml` and `metrics.jsonl`."""
    folder.mkdir(parents=True)
    recipe = {"name": folder.name, "train": {"lr": 1e-4, "batch": 8}} | recipe
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    lines = rows_of() if rows is None else rows
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return folder
