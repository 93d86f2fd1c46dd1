"""Statistics of a source before training on it, as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from spectra_nsa.text.duplicates import exact_duplicates, overlap
from spectra_nsa.text.rows import RetrievalSet, TextSet


def preview(source: TextSet, *, rows: int = 5, against: TextSet | RetrievalSet | None = None) -> dict[str, Any]:
    """Computes counts, lengths, duplicates, quarantined rows, and the overlap with an evaluation set.

    Args:
        source: the rows.
        rows: the number of rows in the sample, from the first.
        against: the evaluation set; ``None`` skips the comparison.

    Returns:
        `name`, `kind`, `rows`, `columns`, `roles`, `quarantined`, `quarantine_file`, `problems`, `notes`, `lengths`
        (column → unit → statistic), `duplicates` (`rows` that repeat an earlier one, and by column), `sample`; `scores`
        or `labels` if the kind has them; `overlap` if `against` is given (see `duplicates.overlap`).
    """
    table = source.dataset
    texts = {column: list(table[column]) for column in source.text_columns}
    facts: dict[str, Any] = {
        "name": source.name,
        "kind": source.kind,
        "rows": len(table),
        "columns": list(table.column_names),
        "roles": list(source.roles),
        "quarantined": source.quarantined,
        "quarantine_file": None if source.quarantine_file is None else str(source.quarantine_file),
        "problems": [asdict(problem) for problem in source.problems],
        "notes": list(source.notes),
        "lengths": {column: lengths(values) for column, values in texts.items()},
        "duplicates": duplicates(texts),
        "sample": [table[index] for index in range(min(rows, len(table)))],
    }
    if source.kind == "scored":
        scores = np.asarray(table["score"], dtype=float)
        facts["scores"] = {"min": float(scores.min()), "mean": float(scores.mean()), "max": float(scores.max())}
    if source.kind == "labelled":
        facts["labels"] = len(set(table["label"]))
    if against is not None:
        facts["overlap"] = overlap(source, against)
    return facts


def lengths(texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Computes minimum, median, mean, 95th percentile and maximum, in characters and in whitespace-separated words."""
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


def duplicates(texts: dict[str, list[str]]) -> dict[str, Any]:
    """Counts the rows that repeat an earlier one in all text columns (`rows`), and in each (`columns`)."""
    joined = ["\0".join(row) for row in zip(*texts.values(), strict=True)]
    columns = {column: int(exact_duplicates(values).sum()) for column, values in texts.items()}
    return {"rows": int(exact_duplicates(joined).sum()), "columns": columns}
