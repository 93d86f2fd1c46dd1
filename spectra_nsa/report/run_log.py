"""A run's log: `metrics.jsonl`, which may be read while it is written, and `recipe.yaml`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError

MetricsRow = Mapping[str, Any]
Point = tuple[float, float]
THROUGHPUT = ("pairs_per_second", "tokens_per_second", "padding_waste", "matmul_share")
SHARES = ("padding_waste", "matmul_share")  # shown as percentages
MEMORY = ("memory_gb", "gpu_memory_gb")
HEALTH = "health_"
DEV = "eval_dev_"
TERM_GRADIENT = "grad_norm_"
SET_LOSS = "loss_"  # of one of several datasets
LOAD, FULLEST, GATE = "expert_load_", "expert_max_violation_", "gate_entropy_"  # of each layer with experts
FINAL = "final"  # marks figures of the finished model, which replace those of the step that it is from
# The values that are no numbers, with the types of their parts.
_EVENTS: dict[str, dict[str, type]] = {
    "started": {"steps": int, "pid": int, "host": str, "environment": dict},
    "ended": {"reason": str, "kept": int},
    "warning": {"kind": str, "message": str, "remedy": str},
}
_OPTIONAL = {"steps", "pid", "host", "environment", "kept"}
_LATEST = 1e11  # seconds; a time or step beyond it is damaged
_NOT_TERMS = {"step", "time", "epoch", "loss", "learning_rate", "grad_norm", "temperature", *THROUGHPUT, *MEMORY}

_NO_TERMS = (TERM_GRADIENT, SET_LOSS, HEALTH, DEV, LOAD, FULLEST, GATE)


@dataclass
class MetricsTail:
    """The rows of a `metrics.jsonl` that may still grow: each `read` adds what was written since.

    Numbers that are not finite stand in the file as null and are NaN here. A line without its end is left for the next
    `read`, and a line that is no JSON object is skipped. A file that was
    replaced is read from its start: a resumed run drops the rows of the steps that it repeats.

    Attributes:
        path: the file; it need not exist yet.
        rows: all rows so far.
    """

    path: Path
    rows: list[MetricsRow] = field(default_factory=list)
    _offset: int = 0
    _inode: int | None = None

    def read(self) -> list[MetricsRow]:
        """Returns all rows, including the new ones."""
        try:
            with self.path.open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._offset:
                    self.rows, self._offset, self._inode = [], 0, facts.st_ino
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return self.rows
        complete = new[: new.rfind(b"\n") + 1]
        self._offset += len(complete)
        self.rows += [row for line in complete.splitlines() if (row := _row(line)) is not None]
        return self.rows


def _row(line: bytes) -> MetricsRow | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        return None
    if not all(is_number(value) and 0 <= value <= _LATEST for value in (row["step"], row.get("time", 0))):
        return None
    row = {key: math.nan if value is None else value for key, value in row.items()}
    return {key: value for key, value in row.items() if _is_valid(key, value)}


def _is_valid(key: str, value: Any) -> bool:
    """Returns whether a value of a row is what a run logs under its key: a number, or an event with its parts."""
    parts = _EVENTS.get(key)
    if parts is None:
        return isinstance(value, int | float)
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) or (name in _OPTIONAL and value.get(name) is None)
        for name, kind in parts.items()
    )


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """A run's recipe and metrics.

    Attributes:
        folder: `runs/NAME`.
        recipe: the resolved recipe.
        rows: the rows of `metrics.jsonl`.
    """

    folder: Path
    recipe: Mapping[str, Any]
    rows: Sequence[MetricsRow]


def read_run(folder: str | Path, *, empty: bool = False) -> RunLog:
    """Reads a run's recipe and metrics.

    Args:
        folder: `runs/NAME`.
        empty: whether a run that has logged nothing yet is accepted.

    Raises:
        SpectraError: the folder is not a run, or nothing has been logged.
    """
    import yaml

    from spectra_nsa.config.yaml_values import parse_yaml

    folder = Path(folder)
    try:
        recipe = parse_yaml((folder / "recipe.yaml").read_text(encoding="utf-8"), None)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SpectraError(
            f"{folder} is not a run (a folder with recipe.yaml, such as runs/first). {_runs_nearby(folder)}"
        ) from error
    rows = MetricsTail(folder / "metrics.jsonl").read()
    if not rows and not empty:
        raise SpectraError(
            f"{folder} has logged nothing yet: {folder / 'metrics.jsonl'} is missing or empty. Wait for the first "
            f"step, or start it: spectra train {folder / 'recipe.yaml'}"
        )
    return RunLog(folder=folder, recipe=recipe if isinstance(recipe, dict) else {}, rows=rows)


def _runs_nearby(folder: Path) -> str:
    parents = [folder, folder.parent, Path("runs")]
    runs = {str(path.parent) for parent in parents if parent.is_dir() for path in parent.glob("*/recipe.yaml")}
    return f"Runs nearby: {', '.join(sorted(runs)[:8])}." if runs else "Start one with spectra train."


def terms_of(row: MetricsRow) -> dict[str, float]:
    """Returns the loss terms of a training row, by name."""
    return {
        key: value
        for key, value in row.items()
        if key not in _NOT_TERMS and not key.startswith(_NO_TERMS) and is_number(value)
    }


def embedding_term(terms: Collection[str]) -> str | None:
    """Returns the loss term of the whole embedding, `semantic` or that of the largest size; ``None`` without one."""
    sizes = {name: int(size) for name in terms for size in [name.removeprefix("semantic_")] if size.isdecimal()}
    return "semantic" if "semantic" in terms else max(sizes, key=lambda name: sizes[name], default=None)


def series_of(rows: Sequence[MetricsRow], key: str, *, most: int = 300) -> list[Point]:
    """Returns (step, value) of a key, thinned to about `most` evenly spaced points that include the last one."""
    values = {float(row["step"]): float(row[key]) for row in rows if is_number(row.get(key))}  # the last of a step
    points = sorted(values.items())
    stride = max(1, -(-len(points) // most))
    kept = points[::stride]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def thin_rows(rows: Sequence[MetricsRow], most: int) -> list[MetricsRow]:
    """Returns about `most` evenly spaced training rows and all other rows, which is enough to draw trends from."""
    train = [row for row in rows if "loss" in row]
    return [*train[:: max(1, -(-len(train) // most))], *(row for row in rows if "loss" not in row)]


def series_names(rows: Sequence[MetricsRow]) -> list[str]:
    """Returns every key with numbers over the steps, in order of appearance."""
    names = {key: None for row in rows for key, value in row.items() if is_number(value)}
    return [name for name in names if name not in ("step", "time", "epoch")]


def expert_layers(rows: Sequence[MetricsRow]) -> list[int]:
    """Returns the layers with experts that the rows have figures of."""
    names = {key for row in rows for key in row if key.startswith(FULLEST)}
    return sorted(int(name.removeprefix(FULLEST)) for name in names)


def is_number(value: Any) -> bool:
    """Returns whether a value is a number; a truth value is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def last_with(rows: Sequence[MetricsRow], key: str) -> MetricsRow:
    """Returns the latest row that has a key; an empty row if there is none."""
    return next((row for row in reversed(rows) if key in row), {})
