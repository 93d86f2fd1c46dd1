"""Grouped batches: every row once, of one group as far as it goes, the same for the same seed and epoch."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from spectra_nsa.training.data.batch_groups import GroupedBatchSampler


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=80), st.integers(2, 9), st.booleans())
def test_every_row_once_and_groups_together(groups: list[str], size: int, drop_last: bool) -> None:
    sampler = GroupedBatchSampler(groups, size, drop_last, groups=groups)
    batches = list(sampler)
    rows = [row for batch in batches for row in batch]
    assert len(rows) == len(set(rows)) and len(batches) == len(sampler)
    assert len(rows) == (len(groups) // size * size if drop_last else len(groups))
    pure = sum(len(batch) == size and len({groups[row] for row in batch}) == 1 for batch in batches)
    assert pure >= sum(count // size for count in Counter(groups).values())


def test_the_order_depends_on_seed_and_epoch() -> None:
    groups = ["a"] * 20 + ["b"] * 20
    sampler = GroupedBatchSampler(groups, 4, True, seed=1, groups=groups)
    first = list(sampler)
    assert first == list(GroupedBatchSampler(groups, 4, True, seed=1, groups=groups))
    sampler.set_epoch(1)
    assert list(sampler) != first
