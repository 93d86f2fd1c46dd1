"""A look at a source before training on it, as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from spectra_nsa.text.duplicates import exact_duplicates, overlap, text_columns
from spectra_nsa.text.rows import RetrievalSet, TextSet


def preview(source: TextSet, *, rows: int = 5, against: TextSet | RetrievalSet | None = None) -> dict[str, Any]:
    """Counts, lengths, duplicates, and overlap with an evaluation set.

    Args:
        source: what was read.
        rows: how many rows to show.
        against: the evaluation set; ``None`` for no comparison.
    """
    table = source.dataset
    names = text_columns(source)
    facts: dict[str, Any] = {
        "source": source.name,
        "kind": source.kind,
        "rows": len(table),
        "columns": table.column_names,
        "quarantined": source.quarantined,
        "quarantine_file": str(source.quarantine_file) if source.quarantine_file else None,
        "problems": [str(problem) for problem in source.problems],
        "notes": list(source.notes),
        "lengths": {name: lengths(list(table[name])) for name in names},
        "duplicates": {name: exact_duplicates(list(table[name])) for name in names},
        "sample": [table[index] for index in range(min(rows, len(table)))],
    }
    if source.kind == "scored":
        scores = np.asarray(table["score"], dtype=float)
        facts["scores"] = {"min": scores.min(), "mean": scores.mean(), "max": scores.max()}
    if source.kind == "labelled":
        facts["labels"] = len(set(table["label"]))
    if against is not None:
        found = overlap(source, against)
        facts["overlap"] = {"with": against.name, "rows": found.rows, "exact": found.exact, "near": found.near}
    return facts


def lengths(texts: list[str]) -> dict[str, dict[str, float]]:
    """Minimum, median, mean, 95th percentile and maximum, in characters and in words."""
    units = {"characters": [len(text) for text in texts], "words": [len(text.split()) for text in texts]}
    return {
        unit: {
            "min": int(np.min(values)),
            "median": float(np.median(values)),
            "mean": round(float(np.mean(values)), 1),
            "p95": float(np.percentile(values, 95)),
            "max": int(np.max(values)),
        }
        for unit, values in units.items()
    }
