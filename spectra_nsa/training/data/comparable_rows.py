"""Rows as the batch sampler compares them, so that no batch holds two spellings of a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.strings import comparable

if TYPE_CHECKING:
    from datasets import Dataset


class ComparableRows:
    """A dataset whose texts are in their `comparable` form.

    sentence-transformers' `NoDuplicatesBatchSampler` reads it like a dataset and never puts equal texts into one batch,
    where each would be a wrong answer to the other's anchor. If no text has several spellings, the batches are those of
    the dataset itself.

    Args:
        rows: the dataset.
    """

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    @property
    def column_names(self) -> list[str]:
        return self._rows.column_names

    def remove_columns(self, names: Iterable[str]) -> ComparableRows:
        """Returns the rows without some columns."""
        return ComparableRows(self._rows.remove_columns(list(names)))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row: dict[str, Any] = self._rows[index]
        return {name: comparable(value) if isinstance(value, str) else value for name, value in row.items()}
