"""Batches of several datasets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from datasets import Dataset

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.training.data.mixed_batches import SET, MixedBatchSampler, SetCollator, SetRows, mixed_sampler
from spectra_nsa.training.data.training_data import TrainingData


def part(name: str, rows: int, groups: int | None = None) -> TrainingData:
    texts = Dataset.from_dict(
        {"anchor": [f"{name}{n}" for n in range(rows)], "positive": [f"{name}+{n}" for n in range(rows)]}
    )
    return TrainingData(
        train=texts,
        dev=None,
        dev_kind=None,
        quarantined=0,
        groups=[str(n % groups) for n in range(rows)] if groups else None,
    )


SETS = {"a": part("a", 22), "b": part("b", 9), "c": part("c", 16, groups=2)}


def sampler(counts: list[int], mixing: Any = "proportional", seed: int = 0) -> MixedBatchSampler:
    data = TrainingData(train=SETS["a"].train, dev=None, dev_kind=None, quarantined=0, sets=SETS)
    rows = SetRows({name: part.train for name, part in SETS.items()})
    return mixed_sampler(data, rows, counts, batch=4, mixing=mixing, seed=seed)


def names(batches: list[list[int]]) -> list[str]:
    """Returns the dataset of each batch, which has to be one."""
    found = [{"a" if row < 22 else "b" if row < 31 else "c" for row in batch} for batch in batches]
    assert all(len(kinds) == 1 for kinds in found)
    return [kinds.pop() for kinds in found]


@pytest.mark.parametrize("counts", [[5, 2, 4], [11, 1, 4]])
def test_each_batch_is_of_one_dataset_and_whole(counts: list[int]) -> None:
    mixed = sampler(counts)
    batches = list(mixed)
    assert len(batches) == len(mixed) == sum(counts) and {len(batch) for batch in batches} == {4}
    assert Counter(names(batches)) == dict(zip("abc", counts, strict=True))
    rows = Counter(row for batch in batches for row in batch)
    assert max(rows.values()) == (3 if counts[0] > 5 else 1)
    groups = [{(row - 31) % 2 for row in batch} for batch in batches if batch[0] >= 31]
    assert all(len(group) == 1 for group in groups)


def test_seed_and_epoch_decide_the_order() -> None:
    first = list(sampler([5, 2, 4]))
    again, other = sampler([5, 2, 4]), sampler([5, 2, 4], seed=1)
    assert list(again) == list(again) == first != list(other)
    again.set_epoch(1)
    assert list(again) != first


def test_they_take_turns() -> None:
    assert names(list(sampler([2, 2, 2], "round_robin"))) == [*"abcabc"]


def test_a_dataset_without_a_batch_is_named() -> None:
    twice = Dataset.from_dict({"anchor": ["same"] * 8, "positive": ["same too"] * 8})
    sets = {"a": SETS["a"], "same": TrainingData(train=twice, dev=None, dev_kind=None, quarantined=0)}
    data = TrainingData(train=twice, dev=None, dev_kind=None, quarantined=0, sets=sets)
    rows = SetRows({name: part.train for name, part in sets.items()})
    with pytest.raises(SpectraError, match=r"data\.sets\.same makes no batch of 4 in which no text repeats"):
        list(mixed_sampler(data, rows, [5, 2], batch=4, mixing="proportional", seed=0))


def test_rows_and_batches_carry_the_name() -> None:
    rows = SetRows({name: part.train for name, part in SETS.items()})
    assert len(rows) == 47 and rows[22] == {"anchor": "b0", "positive": "b+0", SET: "b"}
    collator = SetCollator({name: lambda found, name=name: {"by": name, "rows": found} for name in SETS})
    batch = collator(rows.__getitems__([30, 23]))
    assert batch == {SET: "b", "by": "b", "rows": [SETS["b"].train[8], SETS["b"].train[1]]}
