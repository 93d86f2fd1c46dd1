"""Batches without two spellings of a text."""

from __future__ import annotations

import torch
from datasets import Dataset
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

from spectra_nsa.training.data.comparable_rows import ComparableRows


def batches(rows: Dataset | ComparableRows) -> list[list[int]]:
    sampler = NoDuplicatesBatchSampler(rows, 4, True, ["score"], torch.Generator(), seed=3)
    return [list(map(int, batch)) for batch in sampler]


def test_two_spellings_of_a_text_are_never_in_one_batch() -> None:
    spellings = ("caf\u00e9 {}", "CAFE\u0301  {}", "Caf\u00e9\t{}", " cafe\u0301 {}")
    rows = [{"anchor": spellings[i % 4].format(i // 4), "positive": f"p{i}", "score": 1.0} for i in range(40)]
    for batch in batches(ComparableRows(Dataset.from_list(rows))):
        assert len({row // 4 for row in batch}) == len(batch) == 4
    assert any(len({row // 4 for row in batch}) < 4 for batch in batches(Dataset.from_list(rows)))


def test_without_different_spellings_the_batches_stay() -> None:
    rows = Dataset.from_list([{"anchor": f"A {i // 3}", "positive": f"P {i}", "score": 1.0} for i in range(40)])
    assert batches(ComparableRows(rows)) == batches(rows)
