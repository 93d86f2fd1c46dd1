"""The recipe's data section: training rows and dev rows, kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.config.loss_sections import DistillSection
from spectra_nsa.config.sections import DataSection
from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.errors import SpectraError, unknown_name
from spectra_nsa.text.sources import load_source

if TYPE_CHECKING:
    from datasets import Dataset

TRAINABLE = ("pairs", "triplets", "scored")
_ROWS_PER_CHUNK = 10_000  # rows that are Python strings at once


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """Rows on the disk, of which the training rows are some.

    Attributes:
        rows: all of them, in the order of the file.
        positions: which of them are trained on, in the order of the training rows; ``None`` for all.
        digest: their SHA-256.
    """

    rows: Dataset
    positions: NDArray[np.int64] | None
    digest: str


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run trains on and is watched by.

    Attributes:
        train: columns anchor, positive and any negatives; or sentence1, sentence2 and score.
        dev: pairs or scored pairs; ``None`` for no dev metric.
        dev_kind: ``"pairs"``, ``"scored"`` or ``None``.
        quarantined: broken rows set aside.
        left_out: rows that are not trained on since they share a text with a held-out row.
        groups: the group of each training row, which batches are filled from; ``None`` mixes all rows.
        stored: where the training rows lie; ``None`` where they are in memory.
        scores: the rows with their columns of scores, where there are such (see `distill.scores`).
    """

    train: Dataset
    dev: Dataset | None
    dev_kind: str | None
    quarantined: int
    groups: list[str] | None = None
    stored: StoredRows | None = None
    scores: Dataset | None = None
    left_out: int = 0

    @property
    def all_rows(self) -> Dataset:
        """Rows among which the training rows are, in the order in which they are read fastest."""
        return self.train if self.stored is None else self.stored.rows

    @property
    def columns(self) -> list[str]:
        """The columns of `train` that hold texts."""
        return [name for name in self.train.column_names if name != SCORE_COLUMN]

    @property
    def scored(self) -> bool:
        """Whether the rows are pairs with a score."""
        return SCORE_COLUMN in self.train.column_names


def load_training_data(
    section: DataSection, *, seed: int, quarantine: Path | None, distill: DistillSection | None = None
) -> TrainingData:
    """Loads and splits the data of a recipe.

    Args:
        section: the recipe's `data`.
        distill: its `distill`: with teachers, single texts can be trained on too. ``None`` for none.
        seed: decides which rows are held out.
        quarantine: the folder for broken rows; ``None`` counts them only.

    Raises:
        UsageError: no source is given.
        SpectraError: the source is of a kind that cannot be trained on, or too small.
    """
    source = load_source(
        section.source, columns=section.columns, split=section.split, limit=section.limit, quarantine=quarantine
    )
    distill = distill or DistillSection()
    if source.kind not in (TRAINABLE if not distill.teachers else (*TRAINABLE, "texts")):
        raise SpectraError(
            f"{section.train} holds {source.kind}; training needs pairs or triplets (columns anchor, positive and "
            "optionally negative) or scored pairs (sentence1, sentence2, score). Name your columns with data.columns: "
            "{anchor: …, positive: …}."
        )
    for name in distill.scores or []:
        if name not in source.dataset.column_names:
            raise unknown_name(f"distill.scores: column of {section.train}", name, source.dataset.column_names)
    if section.group is not None and section.group not in source.dataset.column_names:
        found = ", ".join(source.dataset.column_names)
        raise SpectraError(f"data.group: {section.train} has no column {section.group!r}. Its columns: {found}.")
    extra = [section.group] if section.group else []
    names = list(source.roles)
    rows = source.dataset.select_columns(list(dict.fromkeys([*names, *extra])))
    all_rows, positions = rows, None
    dev, dev_kind, quarantined, left_out = None, None, source.quarantined, 0
    if section.dev_rows and section.dev is not None:
        watched = load_source(section.dev, limit=section.dev_rows, quarantine=quarantine)
        if watched.kind not in TRAINABLE:
            raise SpectraError(f"data.dev: {section.dev} holds {watched.kind}; a dev set is pairs or scored pairs.")
        dev, dev_kind = watched.dataset, "scored" if watched.kind == "scored" else "pairs"
        quarantined += watched.quarantined
    elif section.dev_rows and len(rows) >= 4 and source.kind in TRAINABLE:
        texts = list(source.text_columns[:2])
        positions, dev = _hold_out(rows, texts, min(section.dev_rows, len(rows) // 4), seed)
        left_out = len(rows) - len(dev) - len(positions)
        rows, dev_kind = rows.select(positions), "scored" if source.kind == "scored" else "pairs"
    if len(rows) < 2:
        raise SpectraError(f"{section.train} gives {len(rows)} training pair; in-batch negatives need at least 2.")
    groups = _groups(rows, section.group) if section.group else None
    stored = (
        StoredRows(rows=all_rows.select_columns(names), positions=positions, digest=source.digest)
        if source.digest
        else None
    )
    scores = source.dataset.select_columns([*names, *distill.scores]) if distill.scores else None
    return TrainingData(
        train=rows.select_columns(names), dev=dev, dev_kind=dev_kind, quarantined=quarantined, groups=groups,
        stored=stored, scores=scores, left_out=left_out,
    )  # fmt: skip


def _hold_out(rows: Dataset, texts: Sequence[str], size: int, seed: int) -> tuple[NDArray[np.int64], Dataset]:
    """The positions of the training rows, shuffled, and `size` dev rows; the two share no text of those columns.

    The texts are compared where they lie, in the order of the file: a shuffled pass over rows on a disk is slow.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    dev = rows.select(order[:size])
    kept = ~_rows_with_texts(rows, texts, sorted({text for name in texts for text in dev[name]}))
    return order[size:][kept[order[size:]]], dev


def _rows_with_texts(rows: Dataset, names: Sequence[str], texts: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows have one of the texts in one of the columns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = [np.zeros(0, dtype=bool)]
    for table in rows.select_columns(list(names)).with_format("arrow").iter(_ROWS_PER_CHUNK):
        columns = [pc.is_in(column, value_set=pa.array(texts, column.type)).to_numpy() for column in table.columns]
        found.append(np.logical_or(*columns))
    return np.concatenate(found)


def _groups(rows: Dataset, column: str) -> list[str]:
    """The group of each row; each name is one string, however many rows have it."""
    known: dict[str, str] = {}
    groups: list[str] = []
    for table in rows.select_columns([column]).with_format("arrow").iter(_ROWS_PER_CHUNK):
        groups += [known.setdefault(name, name) for name in map(str, table.column(0).to_pylist())]
    return groups
