"""Length-aware forward passes: a batch is split into groups of similar length, so that little padding is computed.

Batch invariance makes this exact. A text's vector does not depend on its group, so a loss over the whole batch sees
the same vectors and the same negatives as in one padded pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.core import processes
from spectra_nsa.tokens.lengths import group_by_length, group_by_tokens

TEXTS_PER_GROUP = 16
_TOKEN_KEYS = ("input_ids", "attention_mask", "token_type_ids")
_POSITIONS, _ROWS = "spectra_positions", "spectra_rows"


@dataclass
class Work:
    """Texts and tokens of forward passes, summed until `take`.

    Attributes:
        texts: number of texts.
        tokens: tokens without padding.
        padded: tokens as computed, with padding.
        squares: sum of the squared lengths, the cost of attention.
    """

    texts: int = 0
    tokens: int = 0
    padded: int = 0
    squares: int = 0

    def add(self, lengths: Sequence[int]) -> None:
        """Adds one padded pass over texts of these lengths."""
        self.texts += len(lengths)
        self.tokens += sum(lengths)
        self.padded += len(lengths) * max(lengths, default=0)
        self.squares += sum(length * length for length in lengths)

    def take(self) -> Work:
        """Returns the sums and resets them to zero."""
        sums = Work(self.texts, self.tokens, self.padded, self.squares)
        self.texts = self.tokens = self.padded = self.squares = 0
        return sums


def plan_passes(
    features: Sequence[dict[str, Any]], groups: int | None = None, tokens: int | None = None
) -> list[list[tuple[int, int]]]:
    """Returns the texts of each forward pass, as (column, row).

    Args:
        features: see `outputs_by_length`.
        groups: see `outputs_by_length`; for each set of columns that may share a pass.
        tokens: the most tokens per pass, padding included, instead of `groups`; ``None`` for `groups`.
    """
    return [rows for columns in _alike(features) for rows in _plan_columns(features, columns, groups, tokens)]


def _alike(features: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Returns the columns that may share a pass: those whose entries beside tokens are equal, such as `task`."""
    kinds: list[list[int]] = []
    for column, batch in enumerate(features):
        for columns in kinds:
            if _equal(_other_entries(batch), _other_entries(features[columns[0]])):
                columns.append(column)
                break
        else:
            kinds.append([column])
    return kinds


def _other_entries(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key not in (*_TOKEN_KEYS, _POSITIONS)}


def _equal(one: Any, other: Any) -> bool:
    """Compares values that may be or hold tensors."""
    if one is other:
        return True
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def _plan_columns(
    features: Sequence[dict[str, Any]], columns: Sequence[int], groups: int | None, tokens: int | None
) -> list[list[tuple[int, int]]]:
    lengths = [int(n) for column in columns for n in features[column]["attention_mask"].sum(-1).tolist()]
    rows = [(column, row) for column in columns for row in range(len(features[column]["input_ids"]))]
    if tokens is not None:
        split = group_by_tokens(lengths, tokens)
    else:
        split = group_by_length(lengths, groups or max(1, round(len(lengths) / TEXTS_PER_GROUP)))
    return [[rows[index] for index in group] for group in split]


def equalize_passes(passes: list[list[tuple[int, int]]]) -> tuple[list[list[tuple[int, int]]], int]:
    """Splits passes until every process has the same number, as sharded weights require.

    The pass with the most texts is halved until there are as many passes as in the process with the most.

    Args:
        passes: see `plan_passes`; each has neighboring lengths, so its halves are no wider.

    Returns:
        the passes, and the number of idle passes to run in addition if there are too few texts.
    """
    wanted = int(processes.max_over_processes(len(passes)))
    passes = list(passes)
    while len(passes) < wanted:
        largest = max(range(len(passes)), key=lambda index: len(passes[index]))
        rows = passes[largest]
        if len(rows) == 1:
            break
        passes[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return passes, wanted - len(passes)


def embed_by_length(
    model: Callable[[dict[str, Any]], dict[str, Any]],
    features: Sequence[dict[str, Any]],
    groups: int | None = None,
) -> list[Tensor]:
    """Returns the embeddings of several columns of texts, a (B, D) tensor for each; see `outputs_by_length`."""
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
    """Returns named outputs of several columns of texts, computed together in groups of similar length.

    Args:
        model: a SentenceTransformer.
        features: a tokenized batch for each column, padded on either side, with `input_ids` and `attention_mask`.
            Columns whose other entries differ, such as `task` or the length of a prompt, share no pass.
        groups: the number of forward passes; ``None`` for about one per 16 texts. 1 gives one padded pass.
        names: the outputs of the model to return.
        work: counts the passes; ``None`` for no counting.
        table: the token embedding, to look up each id once for all passes (see `with_embedding_rows`); ``None``
            looks ids up in each pass.
        equal_passes: whether all processes must run the same number of passes (see `equalize_passes`).

    Returns:
        for each column its outputs by name, rows in the order of `features`.
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
        # added with factor 0, so that its backward pass runs: other processes wait for it
        pieces[0] = {name: value + 0 * out[name].sum() for name, value in pieces[0].items()}
    return join_passes(features, passes, pieces)


def with_embedding_rows(features: Sequence[dict[str, Any]], table: nn.Module) -> list[dict[str, Any]]:
    """Adds to the columns the rows of the token embedding that they use, and the position of each token among them.

    The gradient of a lookup is as large as the table. A lookup in each pass fills a table of 30,522 rows with zeros and
    adds it up in each pass. This lookup does so once per batch, and each pass handles only the rows in use.

    Args:
        features: see `outputs_by_length`.
        table: the token embedding.
    """
    used_U, positions = torch.unique(
        torch.cat([batch["input_ids"].flatten() for batch in features]), return_inverse=True
    )
    rows_UD = table(used_U)
    parts = positions.split([batch["input_ids"].numel() for batch in features])
    return [
        batch | {_ROWS: rows_UD, _POSITIONS: part.view_as(batch["input_ids"])}
        for batch, part in zip(features, parts, strict=True)
    ]


def join_passes(
    features: Sequence[dict[str, Any]],
    passes: Sequence[Sequence[tuple[int, int]]],
    pieces: Sequence[dict[str, Tensor]],
) -> list[dict[str, Tensor]]:
    """Returns the outputs of all passes, for each column by name, rows in the order of `features`."""
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
    """Returns rows of the columns as one batch, padded on the right to the longest of them.

    Args:
        features: see `outputs_by_length`.
        rows: (column, row) of each text; the columns differ in tokens only (see `plan_passes`).
        work: counts the texts; ``None`` for no counting.
    """
    first = features[rows[0][0]]
    masks = [features[column]["attention_mask"][row].bool() for column, row in rows]
    if work is not None:
        work.add([int(mask.sum()) for mask in masks])
    part = _other_entries(first)
    for key in (*_TOKEN_KEYS, _POSITIONS):
        if key in first:
            real = [features[column][key][row][mask] for (column, row), mask in zip(rows, masks, strict=True)]
            part[key] = torch.nn.utils.rnn.pad_sequence(real, batch_first=True)
    if _ROWS in part:
        part["inputs_embeds"] = F.embedding(part.pop(_POSITIONS), part.pop(_ROWS))
    return part
