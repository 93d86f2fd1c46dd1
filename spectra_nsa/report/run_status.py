"""The current status of a run, from its metrics."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from spectra_nsa.report.run_log import (
    DEV,
    HEALTH,
    MEMORY,
    SET_LOSS,
    TERM_GRADIENT,
    THROUGHPUT,
    MetricsRow,
    is_number,
    last_with,
    terms_of,
)

LOWER_IS_BETTER = {"eval_dev_perplexity"}


def run_status(rows: Sequence[MetricsRow], *, now: float) -> dict[str, Any]:
    """Returns the status of a run as JSON can hold it; an unknown value is ``None`` or empty.

    Args:
        rows: the rows of `metrics.jsonl`, in order.
        now: `time.time()`, for the estimate of the remaining time.
    """
    started, ended = last_with(rows, "started"), last_with(rows, "ended")
    over = bool(ended) and ended.get("time", 0) >= started.get("time", 0)
    train = last_with(rows, "loss")
    last = rows[-1] if rows else {}
    health = [row for row in rows if "loss" not in row and any(key.startswith(HEALTH) for key in row)]
    facts = dict(started.get("started", {}))
    return {
        "status": ended["ended"]["reason"] if over else "running" if started else "starting",
        "step": last.get("step", 0),
        "steps": facts.get("steps"),
        "epoch": _epoch(train, last),
        "last_seen": last.get("time"),
        "seconds_left": None if over else _seconds_left(started, last, now),
        "loss": train.get("loss"),
        "terms": terms_of(train),
        "learning_rate": train.get("learning_rate"),
        "temperature": train.get("temperature"),
        "grad_norm": train.get("grad_norm"),
        "grad_norms": _strip_prefix(train, TERM_GRADIENT),
        "set_losses": _strip_prefix(train, SET_LOSS),
        "throughput": {key: train[key] for key in THROUGHPUT if key in train},
        "memory": {key: train[key] for key in MEMORY if key in train},
        "health": _strip_prefix(health[-1], HEALTH) if health else {},
        "health_first": _strip_prefix(health[0], HEALTH) if health else {},
        "dev": _dev(rows, ended["ended"].get("kept") if over else None),
        "warnings": [{"step": row["step"], **row["warning"]} for row in rows if isinstance(row.get("warning"), dict)],
        "started": facts,
    }


def _epoch(train: MetricsRow, last: MetricsRow) -> float | None:
    """Returns the passes over the data up to the last row; not every step logs them."""
    if not train.get("step") or "epoch" not in train or train["step"] == last["step"]:
        return train.get("epoch")
    return float(train["epoch"]) * float(last["step"]) / float(train["step"])


def _strip_prefix(row: MetricsRow, prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}


def seconds_running(rows: Sequence[MetricsRow]) -> float:
    """Returns the seconds between the first and the last row, without the pauses before a run was resumed.

    Args:
        rows: the rows of `metrics.jsonl`, in order.
    """
    pairs = itertools.pairwise(rows)
    return sum(row.get("time", 0.0) - before.get("time", 0.0) for before, row in pairs if "started" not in row)


def _seconds_left(started: MetricsRow, last: MetricsRow, now: float) -> float | None:
    facts = started.get("started", {})
    done, spent = last.get("step", 0) - started.get("step", 0), last.get("time", 0) - started.get("time", 0)
    left = [facts["ends_at"] - now] if facts.get("ends_at") else []
    if facts.get("steps") and done > 0:
        left.append((facts["steps"] - last["step"]) * spent / done - (now - last.get("time", 0)))
    return max(0.0, min(left)) if left else None


def _dev(rows: Sequence[MetricsRow], kept: int | None) -> dict[str, Any]:
    """Returns the dev metric's name, its last and best value, and the value of the step kept in `model/`.

    Best and kept step may differ: the start, or a step without a checkpoint, can be best but is not kept.
    """
    rows = [row for row in rows if "loss" not in row]
    key = next((key for row in rows for key in row if key.startswith(DEV)), None)
    if key is None:
        return {}
    measured = list({row["step"]: row for row in rows if is_number(row.get(key))}.values())  # the last of each step
    best = (min if key in LOWER_IS_BETTER else max)(measured, key=lambda row: row[key])
    name = key.removeprefix("eval_")
    status = {"metric": name, "last": measured[-1][key], "best": best[key], "best_step": best["step"]}
    kept_value = next((row[key] for row in reversed(measured) if row["step"] == kept), None)
    return status | {"kept": kept_value, "kept_step": kept}
