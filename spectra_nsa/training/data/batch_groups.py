"""Batches whose rows come from one group, so that in-batch negatives are similar and therefore harder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler


class GroupedBatchSampler(DefaultBatchSampler):
    """Fills each batch from one group; rows left over from all groups are mixed.

    Each row is in one batch per epoch, except for the rows of a last, incomplete batch with `drop_last`. Seed and epoch
    decide the order of rows and batches.

    Args:
        dataset: the training rows.
        batch_size: rows per batch.
        drop_last: whether to drop an incomplete last batch.
        valid_label_columns: unused.
        generator: the source of randomness; seeded again each epoch.
        seed: see above.
        groups: the group of each row, in the rows' order.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
        *,
        groups: Sequence[str],
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, generator=generator, seed=seed)
        self.groups = list(groups)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        batches: list[list[int]] = []
        members: dict[str, list[int]] = {}
        for row in torch.randperm(len(self.groups), generator=generator).tolist():
            batch = members.setdefault(self.groups[row], [])
            batch.append(row)
            if len(batch) == self.batch_size:
                batches.append(members.pop(self.groups[row]))
        rest = [row for batch in members.values() for row in batch]
        full = len(rest) // self.batch_size * self.batch_size  # rows of complete batches
        batches += [rest[start : start + self.batch_size] for start in range(0, full, self.batch_size)]
        yield from (batches[index] for index in torch.randperm(len(batches), generator=generator).tolist())
        if len(rest) > full and not self.drop_last:
            yield rest[full:]

    def __len__(self) -> int:
        full, left = divmod(len(self.groups), self.batch_size)
        return full + (left > 0 and not self.drop_last)
