"""Length-aware forward passes: the texts of a batch in groups of like length, so that little padding is computed.

Batch invariance makes this exact: a text's vector does not depend on the group it is computed in, so a loss over
the whole batch sees the same vectors, and the same negatives, as one padded pass would give it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.core import processes

TEXTS_PER_GROUP = 16
_TOKEN_KEYS = ("input_ids", "attention_mask", "token_type_ids")
_POSITIONS, _ROWS = "spectra_positions", "spectra_rows"


@dataclass
class Work:
    """What forward passes were given, added up until somebody empties it.

    Attributes:
        texts: texts.
        tokens: tokens without padding.
        padded: tokens as computed, with padding.
        squares: sum of the squared lengths, which attention costs.
    """

    texts: int = 0
    tokens: int = 0
    padded: int = 0
    squares: int = 0

    def add(self, lengths: Sequence[int]) -> None:
        """One padded pass over texts of these lengths."""
        self.texts += len(lengths)
        self.tokens += sum(lengths)
        self.padded += len(lengths) * max(lengths, default=0)
        self.squares += sum(length * length for length in lengths)

    def take(self) -> Work:
        """What has been added up; counting starts again."""
        taken = Work(self.texts, self.tokens, self.padded, self.squares)
        self.texts = self.tokens = self.padded = self.squares = 0
        return taken


def group_by_length(lengths: Sequence[int], groups: int) -> list[list[int]]:
    """Splits indices into at most `groups` groups of neighbouring lengths with the least padded area.

    The split is optimal over boundaries between distinct multiples of 8, found by dynamic programming:
    cost[g][i] = min_j cost[g−1][j] + (i − j) · longest(j … i).

    Args:
        lengths: true lengths.
        groups: how many groups there may be.

    Returns:
        lists of indices, shortest texts first; together every index once.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    ends = [  # where a group may end: the last text of each length class
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
    """Splits indices into groups of neighbouring lengths, each of at most `tokens` tokens with its padding.

    Shortest first, each group takes what still fits; a text longer than `tokens` stands alone.

    Args:
        lengths: true lengths.
        tokens: the largest number of texts times the longest of them.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if groups and (len(groups[-1]) + 1) * lengths[index] <= tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def plan_passes(
    features: Sequence[dict[str, Any]], groups: int | None = None, tokens: int | None = None
) -> list[list[tuple[int, int]]]:
    """Which texts each forward pass takes, as (column, row).

    Args:
        features: see `outputs_by_length`.
        groups: see there.
        tokens: instead of `groups`, the most tokens a pass, padding included; ``None`` goes by `groups`.
    """
    if len({str(batch.get("prompt_length")) for batch in features}) > 1:
        # a prompt's length belongs to its column: keep columns apart
        apart = [(column, plan_passes([batch], groups, tokens)) for column, batch in enumerate(features)]
        return [[(column, row) for _, row in rows] for column, found in apart for rows in found]
    lengths = [int(n) for batch in features for n in batch["attention_mask"].sum(-1).tolist()]
    rows = [(column, row) for column, batch in enumerate(features) for row in range(len(batch["input_ids"]))]
    if tokens is not None:
        split = group_by_tokens(lengths, tokens)
    else:
        split = group_by_length(lengths, groups or max(1, round(len(lengths) / TEXTS_PER_GROUP)))
    return [[rows[index] for index in group] for group in split]


def equalize_passes(passes: list[list[tuple[int, int]]]) -> tuple[list[list[tuple[int, int]]], int]:
    """As many passes as the process with most of them makes: where weights are shared out, every pass is everyone's.

    The pass of most texts is halved until there are enough.

    Args:
        passes: see `plan_passes`; each is of neighbouring lengths, so that its halves are no wider than it was.

    Returns:
        the passes, and how many more are to be made that nothing depends on, where there are too few texts.
    """
    wanted = int(processes.max_over_processes(len(passes)))
    passes = list(passes)
    while len(passes) < wanted:
        place = max(range(len(passes)), key=lambda index: len(passes[index]))
        rows = passes[place]
        if len(rows) == 1:
            break
        passes[place : place + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return passes, wanted - len(passes)


def embed_by_length(
    model: Callable[[dict[str, Any]], dict[str, Any]],
    features: Sequence[dict[str, Any]],
    groups: int | None = None,
) -> list[Tensor]:
    """The embeddings of several columns of texts, one (B, D) tensor a column: see `outputs_by_length`."""
    return [column["sentence_embedding"] for column in outputs_by_length(model, features, groups)]


def outputs_by_length(
    model: Callable[[dict[str, Any]], dict[str, Any]],
    features: Sequence[dict[str, Any]],
    groups: int | None = None,
    names: Sequence[str] = ("sentence_embedding",),
    work: Work | None = None,
    table: nn.Module | None = None,
    equal_passes: bool = False,
) -> list[dict[str, Tensor]]:
    """Named outputs of several columns of texts, computed together in groups of like length.

    Args:
        model: a SentenceTransformer.
        features: one tokenised, right- or left-padded batch a column, each with `input_ids` and `attention_mask`; any
            other entries are the same in all columns.
        groups: how many forward passes; ``None`` for about one per 16 texts. 1 gives one padded pass.
        names: what to keep of the model's outputs.
        work: counts the passes; ``None`` for no counting.
        table: the token embedding, to look up each id once for all passes (see `with_embedding_rows`); ``None``
            looks ids up in each pass.
        equal_passes: whether all processes must run the same number of passes (see `equalize_passes`).

    Returns:
        for each column its outputs by name, rows in their first order.
    """
    passes, idle = plan_passes(features, groups), 0
    if equal_passes:
        passes, idle = equalize_passes(passes)
    if table is not None and len(passes) > 1:
        features = with_embedding_rows(features, table)
    pieces = []
    for rows in passes:
        out = model(build_batch(features, rows, work))
        pieces.append({name: out[name] for name in names})
    for _ in range(idle):
        out = model(build_batch(features, passes[0][:1]))
        # tied to what counts, so that its backward pass takes place: other processes wait for it
        pieces[0] = {name: value + 0 * out[name].sum() for name, value in pieces[0].items()}
    return join_passes(features, passes, pieces)


def with_embedding_rows(features: Sequence[dict[str, Any]], table: nn.Module) -> list[dict[str, Any]]:
    """The columns with the rows of the token embedding that they use, and the place of each token among them.

    The gradient of a lookup is as large as the table. Looked up in each pass, a table of 30,522 rows is filled with
    zeros and added up once a pass; this way once a batch, and each pass has only the rows in use.

    Args:
        features: see `outputs_by_length`.
        table: the token embedding.
    """
    used_U, places = torch.unique(torch.cat([batch["input_ids"].flatten() for batch in features]), return_inverse=True)
    rows_UD = table(used_U)
    parts = places.split([batch["input_ids"].numel() for batch in features])
    return [
        batch | {_ROWS: rows_UD, _POSITIONS: part.view_as(batch["input_ids"])}
        for batch, part in zip(features, parts, strict=True)
    ]


def join_passes(
    features: Sequence[dict[str, Any]],
    passes: Sequence[Sequence[tuple[int, int]]],
    pieces: Sequence[dict[str, Tensor]],
) -> list[dict[str, Tensor]]:
    """The outputs of all passes, for each column by name, rows in their first order."""
    sizes = [len(batch["input_ids"]) for batch in features]
    starts = [sum(sizes[:column]) for column in range(len(sizes))]
    inverse = torch.argsort(torch.tensor([starts[column] + row for rows in passes for column, row in rows]))
    columns: list[dict[str, Tensor]] = [{} for _ in features]
    for name in pieces[0]:
        values = torch.cat([piece[name] for piece in pieces])
        for column, value in zip(columns, values[inverse.to(values.device)].split(sizes), strict=True):
            column[name] = value
    return columns


def build_batch(
    features: Sequence[dict[str, Any]], rows: Sequence[tuple[int, int]], work: Work | None = None
) -> dict[str, Any]:
    """The named rows of the columns as one batch, without their outer padding, padded on the right to the longest.

    Args:
        features: see `outputs_by_length`.
        rows: as (column, row).
        work: counts the texts; ``None`` for no counting.
    """
    first = features[rows[0][0]]
    masks = [features[column]["attention_mask"][row].bool() for column, row in rows]
    if work is not None:
        work.add([int(mask.sum()) for mask in masks])
    part: dict[str, Any] = {key: value for key, value in first.items() if key not in (*_TOKEN_KEYS, _POSITIONS)}
    for key in (*_TOKEN_KEYS, _POSITIONS):
        if key in first:
            real = [features[column][key][row][mask] for (column, row), mask in zip(rows, masks, strict=True)]
            part[key] = torch.nn.utils.rnn.pad_sequence(real, batch_first=True)
    if _ROWS in part:
        part["inputs_embeds"] = F.embedding(part.pop(_POSITIONS), part.pop(_ROWS))
    return part
