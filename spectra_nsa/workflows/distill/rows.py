"""What both kinds of student share: the training rows and the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spectra_nsa.config.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

    from spectra_nsa.training.data.rows import TrainingData

_ROWS = 10_000  # rows that are Python strings at once


def run_folder(recipe: Recipe) -> Path:
    """Returns the folder of a recipe with a name."""
    return Path(recipe.output) / (recipe.name or "")


def load_rows(recipe: Recipe, quarantine: Path | None = None) -> TrainingData:
    """Loads the recipe's rows.

    Args:
        recipe: the run.
        quarantine: the folder for quarantined rows; ``None`` writes none.
    """
    from spectra_nsa.training.data.rows import load_training_data

    return load_training_data(recipe.data, seed=recipe.train.seed, quarantine=quarantine, distill=recipe.distill)


def text_batches(rows: Dataset, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yields the texts of the columns, some rows of one column at a time."""
    for start in range(0, len(rows), _ROWS):
        batch = rows[start : start + _ROWS]
        for column in columns:
            yield batch[column]
