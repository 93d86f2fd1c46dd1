"""What a run's folder says of it: `metrics.jsonl`, read while it is written, and where the run stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError

Row = Mapping[str, Any]
Point = tuple[float, float]
THROUGHPUT = ("pairs_per_second", "tokens_per_second", "padding_waste", "matmul_share")
MEMORY = ("memory_gb", "gpu_memory_gb")
HEALTH = "health_"
DEV = "eval_dev_"
LOWER = {"eval_dev_perplexity"}  # the dev metrics that are better when lower
_TERM_GRADIENT = "grad_norm_"
_NOT_TERMS = {"step", "time", "epoch", "loss", "learning_rate", "grad_norm", "temperature", *THROUGHPUT, *MEMORY}


@dataclass
class MetricsTail:
    """The rows of a `metrics.jsonl` that may still grow: each `read` takes what came since.

    A line without its end is left for the next time, a line that is no JSON object is passed over, and a file that
    was replaced (a resumed run drops the steps it runs again) is read anew.

    Attributes:
        path: the file; it need not be there yet.
        rows: all rows so far.
    """

    path: Path
    rows: list[Row] = field(default_factory=list)
    _offset: int = 0
    _file: int | None = None

    def read(self) -> list[Row]:
        """All rows, with the new ones."""
        try:
            with self.path.open("rb") as file:
                number, size = _identity(file.fileno())
                if number != self._file or size < self._offset:
                    self.rows, self._offset, self._file = [], 0, number
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return self.rows
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.rows += [row for line in whole.splitlines() if (row := _row(line)) is not None]
        return self.rows


def _identity(descriptor: int) -> tuple[int, int]:
    import os

    facts = os.fstat(descriptor)
    return facts.st_ino, facts.st_size


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """A run as its folder tells it.

    Attributes:
        folder: `runs/NAME`.
        recipe: as it was used.
        rows: of `metrics.jsonl`.
    """

    folder: Path
    recipe: Mapping[str, Any]
    rows: Sequence[Row]


def read_run(folder: str | Path, *, empty: bool = False) -> RunLog:
    """Reads a run's recipe and metrics.

    Args:
        folder: `runs/NAME`.
        empty: whether a run that has logged nothing yet will do.

    Raises:
        SpectraError: it is no run, or nothing has been logged.
    """
    import yaml

    folder = Path(folder)
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SpectraError(
            f"{folder} is not a run (a folder with recipe.yaml, such as runs/first). {_runs_beside(folder)}"
        ) from error
    rows = MetricsTail(folder / "metrics.jsonl").read()
    if not rows and not empty:
        raise SpectraError(
            f"{folder} has logged nothing yet: {folder / 'metrics.jsonl'} is missing or empty. Wait for the first "
            f"step, or start it: spectra train {folder / 'recipe.yaml'}"
        )
    return RunLog(folder=folder, recipe=recipe if isinstance(recipe, dict) else {}, rows=rows)


def _runs_beside(folder: Path) -> str:
    places = [folder, folder.parent, Path("runs")]
    found = {str(path.parent) for place in places if place.is_dir() for path in place.glob("*/recipe.yaml")}
    return f"Runs here: {', '.join(sorted(found)[:8])}." if found else "spectra train makes one."


def terms_of(row: Row) -> dict[str, float]:
    """The loss terms of a row of training, by name."""
    return {
        key: value
        for key, value in row.items()
        if key not in _NOT_TERMS and not key.startswith((_TERM_GRADIENT, HEALTH, DEV)) and _is_number(value)
    }


def series_of(rows: Sequence[Row], key: str, *, most: int = 300) -> list[Point]:
    """(step, value) of a key, thinned to about `most` evenly spaced rows; the last one stays."""
    points = [(float(row["step"]), float(row[key])) for row in rows if _is_number(row.get(key))]
    stride = max(1, -(-len(points) // most))
    kept = points[::stride]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def thinned(rows: Sequence[Row], most: int) -> list[Row]:
    """About `most` of the rows of training, evenly spaced, and all others: enough to draw trends from."""
    train = [row for row in rows if "loss" in row]
    return [*train[:: max(1, -(-len(train) // most))], *(row for row in rows if "loss" not in row)]


def series_names(rows: Sequence[Row]) -> list[str]:
    """Every key that is followed over steps, in the order in which they appear."""
    names = {key: None for row in rows for key, value in row.items() if _is_number(value)}
    return [name for name in names if name not in ("step", "time", "epoch")]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def last_with(rows: Sequence[Row], key: str) -> Row:
    """The latest row that has a key; an empty one where none has."""
    return next((row for row in reversed(rows) if key in row), {})


def standing(rows: Sequence[Row], *, now: float) -> dict[str, Any]:
    """Where a run stands, as JSON can hold it; what is not known is ``None`` or empty.

    Args:
        rows: of `metrics.jsonl`, in order.
        now: `time.time()`, for the time that is left.
    """
    started, ended = last_with(rows, "started"), last_with(rows, "ended")
    over = bool(ended) and ended["time"] >= started.get("time", 0)
    train = last_with(rows, "loss")
    last = rows[-1] if rows else {}
    health = [row for row in rows if "loss" not in row and any(key.startswith(HEALTH) for key in row)]
    facts = dict(started.get("started", {}))
    return {
        "status": ended["ended"]["reason"] if over else "running" if started else "starting",
        "step": last.get("step", 0),
        "steps": facts.get("steps"),
        "epoch": train.get("epoch"),
        "last_seen": last.get("time"),
        "seconds_left": None if over else _seconds_left(started, last, now),
        "loss": train.get("loss"),
        "terms": terms_of(train),
        "learning_rate": train.get("learning_rate"),
        "temperature": train.get("temperature"),
        "grad_norm": train.get("grad_norm"),
        "grad_norms": _below(train, _TERM_GRADIENT),
        "throughput": {key: train[key] for key in THROUGHPUT if key in train},
        "memory": {key: train[key] for key in MEMORY if key in train},
        "health": _below(health[-1], HEALTH) if health else {},
        "health_first": _below(health[0], HEALTH) if health else {},
        "dev": _dev(rows, ended["ended"].get("kept") if over else None),
        "warnings": [{"step": row["step"], **row["warning"]} for row in rows if isinstance(row.get("warning"), dict)],
        "started": facts,
    }


def _below(row: Row, prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}


def _seconds_left(started: Row, last: Row, now: float) -> float | None:
    facts = started.get("started", {})
    done, spent = last.get("step", 0) - started.get("step", 0), last.get("time", 0) - started.get("time", 0)
    left = [facts["ends_at"] - now] if facts.get("ends_at") else []
    if facts.get("steps") and done > 0:
        left.append((facts["steps"] - last["step"]) * spent / done - (now - last["time"]))
    return max(0.0, min(left)) if left else None


def _dev(rows: Sequence[Row], kept: int | None) -> dict[str, Any]:
    """The dev metric's name, last and best figure, where the best one was, and what `model/` has.

    The two may differ: the start, and a step without a checkpoint, can be best but not kept.
    """
    rows = [row for row in rows if "loss" not in row]
    key = next((key for row in rows for key in row if key.startswith(DEV)), None)
    if key is None:
        return {}
    measured = [row for row in rows if _is_number(row.get(key))]
    best = (min if key in LOWER else max)(measured, key=lambda row: row[key])
    name = key.removeprefix("eval_")
    found = {"metric": name, "last": measured[-1][key], "best": best[key], "best_step": best["step"]}
    figure = next((row[key] for row in reversed(measured) if row["step"] == kept), None)
    return found | {"kept": figure, "kept_step": kept}


def at_step(step: int) -> str:
    """A step in words: the start is none."""
    return f"step {step:,}" if step else "start (step 0)"
