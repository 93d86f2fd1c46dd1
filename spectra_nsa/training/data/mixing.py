"""How many batches an epoch takes from each of several datasets."""

from __future__ import annotations

from collections.abc import Sequence

from spectra_nsa.config.data_section import Mixing
from spectra_nsa.config.recipe import Recipe
from spectra_nsa.training.data.training_data import TrainingData


def set_batches(recipe: Recipe, data: TrainingData) -> list[int]:
    """Returns the number of batches of an epoch by dataset of a run on `data.sets`."""
    sets = recipe.data.sets or {}
    rows, weights = [len(part.train) for part in data.sets.values()], [sets[name].weight for name in data.sets]
    return batches_per_set(rows, weights, recipe.train.batch, recipe.data.mixing)


def epoch_rows(recipe: Recipe, data: TrainingData) -> int:
    """Returns the number of rows that an epoch reads, apart from an incomplete last batch."""
    return sum(set_batches(recipe, data)) * recipe.train.batch if data.sets else len(data.train)


def texts_per_row(recipe: Recipe, data: TrainingData) -> float:
    """Returns the mean number of texts of the rows that an epoch reads."""
    if not data.sets:
        return len(data.columns)
    counts = set_batches(recipe, data)
    texts = [len(part.columns) * count for part, count in zip(data.sets.values(), counts, strict=True)]
    return sum(texts) / sum(counts)


def batches_per_set(rows: Sequence[int], weights: Sequence[float], batch: int, mixing: Mixing) -> list[int]:
    """Returns the number of batches of an epoch by dataset, at least one each.

    Args:
        rows: of each dataset, at least a batch.
        weights: of each dataset.
        batch: the rows of a batch; an incomplete last batch is left out.
        mixing: ``"proportional"`` takes each dataset's own batches, times its weight; ``"round_robin"`` takes batches
            in the ratio of the weights until the first dataset has no batch left.
    """
    full = [count // batch for count in rows]
    if mixing == "proportional":
        return [max(1, round(count * weight)) for count, weight in zip(full, weights, strict=True)]
    turns = min(count / weight for count, weight in zip(full, weights, strict=True))
    return [max(1, int(turns * weight + 1e-9)) for weight in weights]


def turns_in_order(counts: Sequence[int]) -> list[int]:
    """Returns the dataset of each batch of an epoch, spread evenly; with equal counts they strictly take turns."""
    moments = [((number + 0.5) / count, index) for index, count in enumerate(counts) for number in range(count)]
    return [index for _, index in sorted(moments)]
