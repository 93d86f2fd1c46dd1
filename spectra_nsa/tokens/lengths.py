"""Groups of texts of similar length, so that little padding is computed. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence


def group_by_length(lengths: Sequence[int], groups: int) -> list[list[int]]:
    """Splits indices into at most `groups` groups of neighboring lengths with the least padded area.

    The split is optimal over boundaries between distinct multiples of 8, found by dynamic programming:
    cost[g][i] = min_j cost[g−1][j] + (i − j) · longest(j … i).

    Args:
        lengths: true lengths.
        groups: the largest number of groups.

    Returns:
        lists of indices, shortest texts first; each index is in one of them.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    ends = [  # possible ends of a group: the last text of each length class
        position + 1
        for position, index in enumerate(order)
        if position + 1 == len(order) or -(-lengths[order[position + 1]] // 8) != -(-lengths[index] // 8)
    ]
    longest = [lengths[order[end - 1]] for end in ends]
    best: list[list[tuple[float, int]]] = [[(end * longest[i], -1) for i, end in enumerate(ends)]]
    for _ in range(min(groups, len(ends)) - 1):
        last = best[-1]
        row = []
        for i, end in enumerate(ends):
            options = [(last[j][0] + (end - ends[j]) * longest[i], j) for j in range(i)]
            row.append(min([(end * longest[i], -1), *options]))
        best.append(row)
    cuts = []
    i, g = len(ends) - 1, len(best) - 1
    while i >= 0:
        cuts.append(ends[i])
        i, g = best[g][i][1], g - 1
    cuts.reverse()
    return [order[start:end] for start, end in zip([0, *cuts], cuts, strict=False) if end > start]


def group_by_tokens(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Splits indices into groups of neighboring lengths, each of at most `tokens` tokens including padding.

    Groups are filled one after another, shortest texts first. A text longer than `tokens` is a group of its own.

    Args:
        lengths: true lengths.
        tokens: the limit for the number of texts times the longest of them.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if groups and (len(groups[-1]) + 1) * lengths[index] <= tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
