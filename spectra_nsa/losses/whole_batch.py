"""The batch of all processes, so that P of them compute the loss that one would on the same rows.

Every process holds all vectors and computes the same loss L from them, but back-propagates only from its own rows:
Σ_r ∂L/∂out_r · ∂out_r/∂θ over the processes r is the gradient of one process. Gradients are averaged over processes
afterwards, so those of a process's own rows count P times here; weights that a term uses beside the outputs get the
whole gradient in each process, and their mean is right as it is. (sentence-transformers' `gather_across_devices` gives
the same numbers by summing in the backward pass, which would cost a second exchange.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from spectra_nsa.core import processes


def sizes_of(columns: Sequence[dict[str, Any]]) -> list[list[int]]:
    """How many rows each process has, by rank and column."""
    return processes.everyones([len(column["input_ids"]) for column in columns])


def whole_outputs(outputs: Sequence[dict[str, Tensor]], sizes: Sequence[Sequence[int]]) -> list[dict[str, Tensor]]:
    """Each column's outputs in all processes, by name, one process behind another.

    Args:
        outputs: this process's.
        sizes: see `sizes_of`.
    """
    if len(sizes) == 1:
        return list(outputs)
    return [
        {
            name: processes.all_rows(_counted_for_all(value, len(sizes)), [rows[place] for rows in sizes])
            for name, value in column.items()
        }
        for place, column in enumerate(outputs)
    ]


def _counted_for_all(value: Tensor, times: int) -> Tensor:
    if not value.requires_grad:
        return value
    value = value.view_as(value)
    value.register_hook(lambda gradient: gradient * times)
    return value


def whole_scores(scores_B: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
    """The scores of the rows in all processes, in fp32."""
    scores_B = scores_B.float()
    return scores_B if len(sizes) == 1 else processes.all_rows(scores_B, [rows[0] for rows in sizes])


def own_rows(whole: Tensor, sizes: Sequence[Sequence[int]], column: int) -> Tensor:
    """This process's part of a column of the whole batch."""
    before = sum(rows[column] for rows in sizes[: processes.rank()])
    return whole[before : before + sizes[processes.rank()][column]]
