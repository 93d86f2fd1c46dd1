"""The dev rows of a run: read from a source of their own, or split off the training rows."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.config.data_section import DataSection
from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.counts import counted
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.strings import comparable
from spectra_nsa.text.shared_columns import SharedColumns

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.text.rows import TextSet

TRAINABLE = ("pairs", "triplets", "scored")
LEAST_SCORED = 3  # rank correlation of two rows is 1 or −1 whatever the model
ROWS_PER_CHUNK = 10_000  # rows converted to Python strings at a time


@dataclass(frozen=True, kw_only=True)
class DevSplit:
    """The dev rows of a run, and the training rows that are left.

    Attributes:
        dev: pairs or scored pairs; ``None`` for no dev metric.
        positions: the positions of the training rows, in training order; ``None`` for all rows in their order.
        quarantined: the number of quarantined rows of the dev source.
        left_out: the number of rows dropped because they share a text with a held-out row.
        notes: remarks for the reader, such as why no row is held out.
    """

    dev: Dataset | None = None
    positions: NDArray[np.int64] | None = None
    quarantined: int = 0
    left_out: int = 0
    notes: tuple[str, ...] = ()


def split_dev(source: TextSet, section: DataSection, *, seed: int, quarantine: Path | None) -> DevSplit:
    """Reads the dev rows that a recipe names, or holds out rows.

    At most a quarter of the rows is held out, and none if a metric on them would not depend on the model.

    Args:
        source: the training rows.
        section: the recipe's `data`.
        seed: decides which rows are held out.
        quarantine: the folder for quarantined rows; ``None`` only counts them.

    Raises:
        SpectraError: the dev source holds rows of another kind or has no metric, or no training row is left.
    """
    if not section.dev_rows:
        return DevSplit()
    if section.dev is not None:
        return read_dev(section, section.dev, quarantine)
    if source.kind not in TRAINABLE:
        return DevSplit()
    rows, texts = source.dataset.select_columns(list(source.roles)), list(source.text_columns[:2])
    size = min(section.dev_rows, len(rows) // 4)
    order = np.random.default_rng(seed).permutation(len(rows))
    dev = rows.select(order[:size])
    problem = _no_metric(dev, texts[1], source.kind)
    if problem is not None:
        return DevSplit(notes=(f"no rows are held out, because {problem}: no dev metric",))
    positions = without_texts(texts_of(dev, texts), rows, texts, order[size:])
    if len(positions) < 2:
        raise SpectraError(
            f"{section.train}: {counted(len(positions), 'training row')} left: the others share a text with one of the "
            f"{counted(size, 'held-out row')}. Name dev rows of their own (data.dev), or set data.dev_rows=0."
        )
    return DevSplit(dev=dev, positions=positions, left_out=len(rows) - size - len(positions))


def read_dev(section: DataSection, name: str, quarantine: Path | None) -> DevSplit:
    """Reads dev rows from a source of their own.

    Args:
        section: the recipe's `data`, with the number of rows to read.
        name: the source.
        quarantine: the folder for quarantined rows; ``None`` only counts them.

    Raises:
        SpectraError: the source holds rows of another kind, or has no metric.
    """
    source = SharedColumns(section.columns).load(name, limit=section.dev_rows, quarantine=quarantine)
    if source.kind not in TRAINABLE:
        raise SpectraError(f"data.dev: {name} holds {source.kind}; a dev set needs pairs or scored pairs.")
    problem = _no_metric(source.dataset, source.text_columns[1], source.kind)
    if problem is not None:
        raise SpectraError(f"data.dev: {name} has no dev metric, because {problem}. Name other rows.")
    return DevSplit(dev=source.dataset, quarantined=source.quarantined, notes=tuple(source.notes))


def _no_metric(dev: Dataset, second: str, kind: str) -> str | None:
    """Returns why the dev metric would be the same for every model, or undefined; ``None`` if it is a metric."""
    if kind == "scored":
        if len(dev) < LEAST_SCORED:
            return f"{counted(len(dev), 'dev row')} would be too few for a correlation"
        if len(set(dev[SCORE_COLUMN])) < 2:
            return "all their scores are equal"
    elif len(set(map(comparable, dev[second]))) < 2:
        return "finding a positive takes at least two different ones"
    return None


def texts_of(dev: Dataset, names: Sequence[str]) -> Set[str]:
    """Returns the texts of dev rows in the named columns, as `comparable` spells them."""
    return {comparable(text) for name in names for text in dev[name]}


def without_texts(
    held_out: Set[str], rows: Dataset, names: Sequence[str], positions: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns those of the positions whose rows have no held-out text in the named columns.

    Texts are compared in the order of the file, because a shuffled pass over rows on disk is slow.
    """
    shared: list[bool] = []
    for table in rows.select_columns(list(names)).with_format("arrow").iter(ROWS_PER_CHUNK):
        texts = zip(*(column.to_pylist() for column in table.columns), strict=True)
        shared += [not held_out.isdisjoint(map(comparable, row)) for row in texts]
    return positions[~np.array(shared, dtype=bool)[positions]]
