"""What a run learns from: the training rows and dev rows of one dataset, or of several."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    from datasets import Dataset

_TEXT_COLUMN = re.compile(r"anchor|positive|negative(_\d+)?|sentence[12]|text")


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
        train: columns anchor, positive and any negatives; or sentence1, sentence2 and score. Of several datasets it is
            a view of all rows, whose columns anchor and positive are the first two texts of each: for what only needs
            texts.
        dev: pairs or scored pairs; ``None`` for no dev metric.
        dev_kind: ``"pairs"``, ``"scored"`` or ``None``.
        quarantined: number of rows that were quarantined.
        left_out: number of rows dropped because they share a text with a held-out row.
        groups: the group of each training row, from which batches are filled; ``None`` mixes all rows.
        stored: the rows on disk; ``None`` if the rows are in memory.
        scores: the rows with their score columns (see `distill.scores`); ``None`` without any.
        notes: remarks for the reader, such as why no row is held out.
        sets: the datasets by name, the first with the dev rows; empty if there is only one, which is this.

    Raises:
        SpectraError: a column is neither a text nor the score. sentence-transformers would train on it as a text.
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
    sets: Mapping[str, TrainingData] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.train.column_names:
            if name != SCORE_COLUMN and not _TEXT_COLUMN.fullmatch(name):
                raise SpectraError(
                    f"the training rows have a column {name!r}, which is neither a text nor the score. Drop it, or "
                    "rename it: anchor, positive, negative, negative_2, …; sentence1, sentence2, score; or text."
                )

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

    @property
    def parts(self) -> Mapping[str, TrainingData]:
        """The datasets by name; a single one has the name ``""``."""
        return self.sets or {"": self}

    @property
    def first(self) -> TrainingData:
        """The first dataset, to which the dev rows belong."""
        return next(iter(self.parts.values()))
