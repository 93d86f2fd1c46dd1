"""The schema of every measurement: `results.json` and every `--json` follow it."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

SCHEMA = 1
_VERSIONED = ("spectra-nsa", "torch", "transformers", "sentence-transformers", "numpy")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure.

    Attributes:
        task: the kind of task: ``"sts"``, ``"retrieval"``, ``"knn"``, ``"pairs"`` or ``"statistics"``.
        name: the dataset's name.
        system: what was measured: a model's name, ``"bm25"``, …
        metric: ``"ndcg@10"``, ``"mrr"``, ``"recall@1"``, ``"map"``, ``"spearman"``, …
        value: the figure.
        ci: the 95 % bootstrap interval; ``None`` if none is defined.
        n: the number of units (queries, pairs, texts) that the figure averages.
    """

    task: str
    name: str
    system: str
    metric: str
    value: float
    ci: tuple[float, float] | None = None
    n: int


def versions() -> dict[str, str]:
    """Returns the versions of this package and of its main dependencies, without importing any of them."""
    found = {}
    for name in _VERSIONED:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def environment() -> dict[str, Any]:
    """Returns the facts besides the model that a figure depends on: versions, platform, processors."""
    return {"python": platform.python_version(), "platform": platform.platform(), "cpus": os.cpu_count(), **versions()}


def results_document(results: Sequence[Result], *, model: str | None, seconds: float, **extra: Any) -> dict[str, Any]:
    """Returns the JSON document for a list of results.

    Args:
        results: the figures.
        model: the measured model's path or name; ``None`` if there is none.
        seconds: how long the measurement took.
        extra: more top-level keys.
    """
    return {
        "schema": SCHEMA,
        "model": model,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "environment": environment(),
        "seconds": round(seconds, 3),
        **extra,
        "results": [
            {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(result).items()}
            for result in results
        ],
    }
