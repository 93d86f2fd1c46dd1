"""The batch of all processes: P processes compute the loss that one would compute on the same rows.

Every process holds all vectors and computes the same loss L from them, but back-propagates only from its own rows:
Σ_r ∂L/∂out_r · ∂out_r/∂θ over the processes r is the gradient of one process. Gradients are averaged over processes
afterwards, so those of a process's own rows count P times here. Parameters that a term reads beside the outputs get the
full gradient in each process, and their mean is correct as it is. (sentence-transformers' `gather_across_devices` gives
the same numbers by summing in the backward pass, which would need a second exchange.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from spectra_nsa.core import processes


def sizes_of(columns: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Returns the number of rows of each process, by rank and column."""
    return processes.gather_counts([len(column["input_ids"]) for column in columns])


def whole_outputs(outputs: Sequence[dict[str, Tensor]], sizes: Sequence[Sequence[int]]) -> list[dict[str, Tensor]]:
    """Returns each column's outputs in all processes by name, in order of rank.

    Args:
        outputs: those of this process.
        sizes: see `sizes_of`.
    """
    if len(sizes) == 1:
        return list(outputs)
    return [
        {
            name: processes.gather_rows(_with_gradient_times(value, len(sizes)), [rows[index] for rows in sizes])
            for name, value in column.items()
        }
        for index, column in enumerate(outputs)
    ]


def _with_gradient_times(value: Tensor, times: int) -> Tensor:
    if not value.requires_grad:
        return value
    value = value.view_as(value)
    value.register_hook(lambda gradient: gradient * times)
    return value


def whole_scores(scores_B: Tensor, sizes: Sequence[Sequence[int]]) -> Tensor:
    """Returns the scores of the rows in all processes, in fp32."""
    scores_B = scores_B.float()
    return scores_B if len(sizes) == 1 else processes.gather_rows(scores_B, [rows[0] for rows in sizes])


def own_rows(whole: Tensor, sizes: Sequence[Sequence[int]], column: int) -> Tensor:
    """Returns this process's rows of a column of the whole batch."""
    before = sum(rows[column] for rows in sizes[: processes.rank()])
    return whole[before : before + sizes[processes.rank()][column]]
