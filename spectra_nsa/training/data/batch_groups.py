"""Batches whose rows come from one group, so that the negatives of a batch are alike and therefore harder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sentence_transformers.base.sampler import DefaultBatchSampler


class GroupedBatchSampler(DefaultBatchSampler):
    """Fills each batch from one group as far as the group goes; what is left over is mixed.

    Every row stands in one batch an epoch (but for those of a last, incomplete batch where `drop_last`), rows and
    batches in an order that seed and epoch decide.

    Args:
        dataset: the training rows.
        batch_size: rows a batch.
        drop_last: whether an incomplete last batch is left out.
        valid_label_columns: unused.
        generator: the source of randomness; seeded anew each epoch.
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
        whole = len(rest) // self.batch_size * self.batch_size
        batches += [rest[start : start + self.batch_size] for start in range(0, whole, self.batch_size)]
        yield from (batches[place] for place in torch.randperm(len(batches), generator=generator).tolist())
        if len(rest) > whole and not self.drop_last:
            yield rest[whole:]

    def __len__(self) -> int:
        whole, left = divmod(len(self.groups), self.batch_size)
        return whole + (left > 0 and not self.drop_last)
