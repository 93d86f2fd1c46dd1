"""Training rows and dev rows of the recipe's `data` section."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.config.loss_sections import DistillSection
from spectra_nsa.config.sections import DataSection
from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError, unknown_name
from spectra_nsa.text.rows import kind_name
from spectra_nsa.text.sources import load_source
from spectra_nsa.training.data.dev_rows import ROWS_PER_CHUNK, TRAINABLE, split_dev

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.text.rows import TextSet


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """Rows on disk that include the training rows.

    Attributes:
        rows: all rows, in the order of the file.
        positions: the positions of the training rows in `rows`, in training order; ``None`` for all rows.
        digest: the SHA-256 of the rows.
    """

    rows: Dataset
    positions: NDArray[np.int64] | None
    digest: str


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The training rows and dev rows of a run.

    Attributes:
        train: columns anchor, positive and any negatives; or sentence1, sentence2 and score.
        dev: pairs or scored pairs; ``None`` for no dev metric.
        dev_kind: ``"pairs"``, ``"scored"`` or ``None``.
        quarantined: number of rows that were quarantined.
        left_out: number of rows dropped because they share a text with a held-out row.
        groups: the group of each training row, from which batches are filled; ``None`` mixes all rows.
        stored: the rows on disk; ``None`` if the rows are in memory.
        scores: the rows with their score columns (see `distill.scores`); ``None`` without any.
        notes: remarks for the reader, such as why no row is held out.
    """

    train: Dataset
    dev: Dataset | None
    dev_kind: str | None
    quarantined: int
    groups: list[str] | None = None
    stored: StoredRows | None = None
    scores: Dataset | None = None
    left_out: int = 0
    notes: tuple[str, ...] = ()

    @property
    def all_rows(self) -> Dataset:
        """The rows that include the training rows, in the order that is fastest to read."""
        return self.train if self.stored is None else self.stored.rows

    @property
    def columns(self) -> list[str]:
        """The columns of `train` that hold texts."""
        return [name for name in self.train.column_names if name != SCORE_COLUMN]

    @property
    def scored(self) -> bool:
        """Whether the training rows are pairs with a score."""
        return SCORE_COLUMN in self.train.column_names


def load_training_data(
    section: DataSection, *, seed: int, quarantine: Path | None, distill: DistillSection | None = None
) -> TrainingData:
    """Loads and splits the data of a recipe.

    Args:
        section: the recipe's `data`.
        distill: the recipe's `distill`; with teachers, single texts can be trained on. ``None`` for no distillation.
        seed: decides which rows are held out.
        quarantine: the folder for quarantined rows; ``None`` only counts them.

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
    distill = distill or DistillSection()
    _check_columns(source, section, distill)
    extra = [section.group] if section.group else []
    names = list(source.roles)
    rows = source.dataset.select_columns(list(dict.fromkeys([*names, *extra])))
    all_rows = rows
    split = split_dev(source, section, seed=seed, quarantine=quarantine)
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
        train=rows.select_columns(names), dev=split.dev, dev_kind=_dev_kind(split.dev),
        quarantined=source.quarantined + split.quarantined, groups=groups, stored=stored, scores=scores,
        left_out=split.left_out, notes=(*source.notes, *split.notes),
    )  # fmt: skip


def _dev_kind(dev: Dataset | None) -> str | None:
    if dev is None:
        return None
    return "scored" if SCORE_COLUMN in dev.column_names else "pairs"


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
