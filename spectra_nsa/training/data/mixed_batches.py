"""Batches of several datasets: each is filled from one dataset, whose name it carries."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler

from spectra_nsa.config.data_section import Mixing
from spectra_nsa.config.terms import SCORE_COLUMN
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.training.data.batch_groups import GroupedBatchSampler
from spectra_nsa.training.data.comparable_rows import ComparableRows
from spectra_nsa.training.data.mixing import turns_in_order
from spectra_nsa.training.data.training_data import TrainingData

if TYPE_CHECKING:
    from datasets import Dataset

SET = "dataset_name"  # the entry of a row and of a batch with the name of its dataset, as sentence-transformers has it
_PASS = 100_003  # added to the epoch for each further pass over a dataset within it


class SetRows:
    """The rows of several datasets, one after the other; each row names its dataset.

    Args:
        sets: the rows by name; their columns may differ.
    """

    column_names: tuple[str, ...] = ()  # the trainer looks for names that it reserves

    def __init__(self, sets: Mapping[str, Dataset]) -> None:
        self.names, self.sets = list(sets), list(sets.values())
        self.starts = [0, *itertools.accumulate(map(len, self.sets))]

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Returns the rows of a batch; all are of the dataset of the first."""
        number = bisect.bisect_right(self.starts, indices[0]) - 1
        rows: Any = self.sets[number]
        found = rows.__getitems__([index - self.starts[number] for index in indices])
        return [{**row, SET: self.names[number]} for row in found]


class SetCollator:
    """Makes a batch by the collator of its dataset, and adds the dataset's name.

    Args:
        collators: by the name of the dataset.
    """

    valid_label_columns = (SCORE_COLUMN,)

    def __init__(self, collators: Mapping[str, Callable[[list[dict[str, Any]]], dict[str, Any]]]) -> None:
        self.collators = dict(collators)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        name = features[0][SET]
        rows = [{key: value for key, value in row.items() if key != SET} for row in features]
        return {SET: name, **self.collators[name](rows)}


class MixedBatchSampler(DefaultBatchSampler):
    """Takes a number of batches from each dataset in an epoch.

    Seed and epoch decide everything. A dataset whose batches are used up within an epoch is read again in a new order.

    Args:
        rows: of all datasets.
        samplers: of each dataset, which number its rows from 0.
        counts: the batches of an epoch from each dataset.
        shuffle: whether the datasets follow each other in random order; otherwise they are spread evenly.
        seed: see above.

    Raises:
        SpectraError: on iteration, a dataset fills no batch, because too few of its texts differ.
    """

    def __init__(
        self,
        rows: SetRows,
        samplers: Sequence[DefaultBatchSampler],
        counts: Sequence[int],
        *,
        shuffle: bool,
        seed: int,
    ) -> None:
        super().__init__(rows, batch_size=samplers[0].batch_size, drop_last=True, seed=seed)
        self.names = rows.names
        self.starts, self.samplers, self.counts, self.shuffle = rows.starts, list(samplers), list(counts), shuffle

    def __iter__(self) -> Iterator[list[int]]:
        order = turns_in_order(self.counts)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = [order[place] for place in torch.randperm(len(order), generator=generator).tolist()]
        batches = [self._batches(name, sampler) for name, sampler in zip(self.names, self.samplers, strict=True)]
        for index in order:
            yield [self.starts[index] + row for row in next(batches[index])]

    def _batches(self, name: str, sampler: DefaultBatchSampler) -> Iterator[list[int]]:
        """Yields the batches of a dataset, again and again."""
        for number in itertools.count():
            sampler.set_epoch(self.epoch + _PASS * number)
            empty = True
            for batch in sampler:
                empty = False
                yield batch
            if empty:
                raise SpectraError(
                    f"data.sets.{name} makes no batch of {self.batch_size} in which no text repeats. Lower "
                    "train.batch, or add rows with other texts."
                )

    def __len__(self) -> int:
        return sum(self.counts)


def mixed_sampler(
    data: TrainingData, rows: SetRows, counts: Sequence[int], *, batch: int, mixing: Mixing, seed: int
) -> MixedBatchSampler:
    """Returns the sampler of a run on several datasets. No batch holds a text twice, unless a dataset has groups.

    Args:
        data: the rows as texts.
        rows: the same rows, as they are trained on.
        counts: the batches of an epoch from each dataset.
        batch: the rows of a batch.
        mixing: see `batches_per_set`.
        seed: decides the order.
    """
    samplers = [_sampler(part, batch, seed + number) for number, part in enumerate(data.sets.values())]
    return MixedBatchSampler(rows, samplers, counts, shuffle=mixing == "proportional", seed=seed)


def _sampler(part: TrainingData, batch: int, seed: int) -> DefaultBatchSampler:
    rows: Any = part.train
    if part.groups is not None:
        return GroupedBatchSampler(rows, batch, True, seed=seed, groups=part.groups)
    return NoDuplicatesBatchSampler(
        ComparableRows(rows), batch, True, [SCORE_COLUMN], generator=torch.Generator(), seed=seed
    )
