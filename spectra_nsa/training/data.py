"""The recipe's data section: training rows and dev rows, kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import DataSection
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.rows import TextSet
from spectra_nsa.text.sources import load_source

if TYPE_CHECKING:
    from datasets import Dataset

TRAINABLE = ("pairs", "triplets")
_AT_A_TIME = 10_000  # rows that are Python strings at once


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run trains on and is watched by.

    Attributes:
        train: columns anchor, positive and any negatives.
        dev: pairs or scored pairs; ``None`` for no dev metric.
        dev_kind: ``"pairs"``, ``"scored"`` or ``None``.
        quarantined: broken rows set aside.
        groups: the group of each training row, which batches are filled from; ``None`` mixes all rows.
    """

    train: Dataset
    dev: Dataset | None
    dev_kind: str | None
    quarantined: int
    groups: list[str] | None = None


def load_training_data(section: DataSection, *, seed: int, quarantine: Path | None) -> TrainingData:
    """Loads and splits the data of a recipe.

    Args:
        section: the recipe's `data`.
        seed: decides which rows are held out.
        quarantine: the folder for broken rows; ``None`` counts them only.

    Raises:
        UsageError: no source is given.
        SpectraError: the source is of a kind that cannot be trained on, or too small.
    """
    if section.train is None:
        raise UsageError("nothing to train on: give --data SOURCE (a file, a Hub set, or python:installed).")
    source = load_source(
        section.train, columns=section.columns, split=section.split, limit=section.limit, quarantine=quarantine
    )
    if source.kind not in TRAINABLE:
        raise SpectraError(
            f"{section.train} holds {source.kind}; training needs pairs or triplets (columns anchor, positive and "
            "optionally negative). Name your columns with data.columns: {anchor: …, positive: …}."
        )
    if section.group is not None and section.group not in source.dataset.column_names:
        found = ", ".join(source.dataset.column_names)
        raise SpectraError(f"data.group: {section.train} has no column {section.group!r}. Its columns: {found}.")
    extra = [section.group] if section.group else []
    rows = source.dataset.select_columns([*_text_columns(source), *extra])
    dev, dev_kind, quarantined = None, None, source.quarantined
    if section.dev_rows and section.dev is not None:
        watched = load_source(section.dev, limit=section.dev_rows, quarantine=quarantine)
        if watched.kind not in ("scored", *TRAINABLE):
            raise SpectraError(f"data.dev: {section.dev} holds {watched.kind}; a dev set is pairs or scored pairs.")
        dev, dev_kind = watched.dataset, "scored" if watched.kind == "scored" else "pairs"
        quarantined += watched.quarantined
    elif section.dev_rows and len(rows) >= 4:
        rows, dev = _hold_out(rows, min(section.dev_rows, len(rows) // 4), seed)
        dev_kind = "pairs"
    if len(rows) < 2:
        raise SpectraError(f"{section.train} gives {len(rows)} training pair; in-batch negatives need at least 2.")
    groups = [str(group) for group in rows[section.group]] if section.group else None
    rows = rows.select_columns(_text_columns(source))
    return TrainingData(groups=groups, train=rows, dev=dev, dev_kind=dev_kind, quarantined=quarantined)


def _text_columns(source: TextSet) -> list[str]:
    names = source.dataset.column_names
    return [name for name in names if name in ("anchor", "positive") or name.startswith("negative")]


def _hold_out(rows: Dataset, size: int, seed: int) -> tuple[Dataset, Dataset]:
    """Holds `size` rows out; no anchor or positive of theirs stays in the training rows."""
    shuffled = rows.shuffle(seed=seed)
    dev = shuffled.select(range(size))
    texts = set(dev["anchor"]) | set(dev["positive"])
    kept: list[int] = []
    for start in range(size, len(shuffled), _AT_A_TIME):
        part = shuffled[start : start + _AT_A_TIME]
        kept += [
            start + index
            for index, pair in enumerate(zip(part["anchor"], part["positive"], strict=True))
            if pair[0] not in texts and pair[1] not in texts
        ]
    return shuffled.select(kept), dev
