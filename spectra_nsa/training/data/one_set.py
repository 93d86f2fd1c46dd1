"""The training rows and dev rows of one dataset."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spectra_nsa.config.data_section import DataSection
from spectra_nsa.config.loss_sections import DistillSection
from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, unknown_name
from spectra_nsa.text.rows import kind_name
from spectra_nsa.text.sources import load_source
from spectra_nsa.training.data.dev_rows import ROWS_PER_CHUNK, TRAINABLE, DevSplit, split_dev, without_texts
from spectra_nsa.training.data.training_data import StoredRows, TrainingData

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.text.rows import TextSet


def load_one_set(
    section: DataSection,
    *,
    seed: int,
    quarantine: Path | None,
    distill: DistillSection,
    held_out: Set[str] = frozenset(),
    optional_scores: bool = False,
) -> TrainingData:
    """Loads and splits the rows of one source.

    Args:
        section: the source, and how many rows to hold out.
        seed: decides which rows are held out.
        quarantine: the folder for quarantined rows; ``None`` only counts them.
        distill: the recipe's `distill`; with teachers, single texts can be trained on.
        held_out: texts held out of another dataset, as `comparable` spells them; rows with one of them are left out.
        optional_scores: whether rows without the columns of `distill.scores` are accepted.

    Raises:
        UsageError: the section names no source.
        SpectraError: the source holds rows of another kind, or too few of them.
    """
    source = load_source(
        section.source,
        columns=section.columns,
        split=section.split,
        limit=section.limit,
        negatives=section.negatives,
        quarantine=quarantine,
    )
    if optional_scores and not set(distill.scores or ()) <= set(source.dataset.column_names):
        distill = distill.model_copy(update={"scores": None})
    _check_columns(source, section, distill)
    extra = [section.group] if section.group else []
    names = list(source.roles)
    rows = source.dataset.select_columns(list(dict.fromkeys([*names, *extra])))
    all_rows = rows
    split = split_dev(source, section, seed=seed, quarantine=quarantine)
    split = _without(held_out, rows, source, split) if held_out else split
    if split.positions is not None:
        rows = rows.select(split.positions)
    if len(rows) < 2:
        raise SpectraError(
            f"{section.train} has {counted(len(rows), 'training row')}: in-batch negatives need at least 2. Add rows."
        )
    groups = _groups(rows, section.group) if section.group else None
    stored = (
        StoredRows(rows=all_rows.select_columns(names), positions=split.positions, digest=source.digest)
        if source.digest
        else None
    )
    scores = source.dataset.select_columns([*names, *distill.scores]) if distill.scores else None
    return TrainingData(
        train=rows.select_columns(names), dev=split.dev, dev_kind=dev_kind(split.dev),
        quarantined=source.quarantined + split.quarantined, groups=groups, stored=stored, scores=scores,
        left_out=split.left_out, notes=(*source.notes, *split.notes),
    )  # fmt: skip


def dev_kind(dev: Dataset | None) -> str | None:
    """Returns what dev rows are: ``"pairs"`` or ``"scored"``; ``None`` if there are none."""
    if dev is None:
        return None
    return "scored" if SCORE_COLUMN in dev.column_names else "pairs"


def _without(held_out: Set[str], rows: Dataset, source: TextSet, split: DevSplit) -> DevSplit:
    """Returns a split without rows held out, with the positions of the rows that have none of the texts."""
    positions = without_texts(held_out, rows, source.text_columns[:2], np.arange(len(rows)))
    left_out = len(rows) - len(positions)
    return DevSplit(positions=positions, left_out=left_out, notes=split.notes) if left_out else split


def _check_columns(source: TextSet, section: DataSection, distill: DistillSection) -> None:
    """Checks that the rows can be trained on and have the columns that the recipe names."""
    if source.kind not in (TRAINABLE if not distill.teachers else (*TRAINABLE, "texts")):
        raise SpectraError(
            f"{section.train} holds {kind_name(source.kind)}; training needs pairs or triplets (columns anchor, "
            "positive and optionally negative) or scored pairs (sentence1, sentence2, score). Name your columns with "
            "data.columns: {anchor: …, positive: …}."
        )
    for name in distill.scores or []:
        if name not in source.dataset.column_names:
            raise unknown_name(f"distill.scores: column of {section.train}", name, source.dataset.column_names)
    if section.group is not None and section.group not in source.dataset.column_names:
        columns = ", ".join(source.dataset.column_names)
        raise SpectraError(f"data.group: {section.train} has no column {section.group!r}. Its columns: {columns}.")


def _groups(rows: Dataset, column: str) -> list[str]:
    """Returns the group of each row; rows of the same group share one string object."""
    known: dict[str, str] = {}
    groups: list[str] = []
    for table in rows.select_columns([column]).with_format("arrow").iter(ROWS_PER_CHUNK):
        groups += [known.setdefault(name, name) for name in map(str, table.column(0).to_pylist())]
    return groups
