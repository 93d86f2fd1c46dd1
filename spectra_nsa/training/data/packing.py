"""Documents packed into sequences of about equal length, and their masking.

A sequence is a list of documents that together fit the model's longest text. The model never sees it as one text. Its
documents are computed in passes of similar length, so no token attends to another document and positions start at 0 in
each. By batch invariance a document has the same states as alone, for every kind of attention and mixer. Packing makes
all steps have about the same number of tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from spectra_nsa.tokens.length_batches import Work
from spectra_nsa.tokens.lengths import group_by_length
from spectra_nsa.training.data.documents import Documents

IGNORED = -100  # the label of a token that is not predicted
MASKED, REPLACED = 0.8, 0.9  # cumulative shares of [MASK] and random tokens; the rest stay unchanged
_MAX_PASSES = 8  # passes per batch
_PADDING = 0.05  # share of padding that does not justify a further pass
_MAX_OPEN = 64  # sequences that still accept documents during packing


def pack_documents(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """Packs documents into sequences of at most `capacity` tokens, in an order that the seed decides.

    Best fit over at most 64 open sequences: each document goes where it leaves the fewest free tokens.

    Args:
        lengths: tokens of each document, each at most `capacity`.
        capacity: the most tokens of a sequence.
        seed: decides the order in which documents are packed.

    Returns:
        the documents of each sequence; each document is in one of them.
    """
    packed: list[list[int]] = []
    open_sequences: list[list[int]] = []
    free: list[int] = []
    for index in np.random.default_rng(seed).permutation(len(lengths)).tolist():
        length = int(lengths[index])
        fits = [(space, position) for position, space in enumerate(free) if space >= length]
        if fits:
            _, position = min(fits)
            open_sequences[position].append(index)
            free[position] -= length
            continue
        if len(open_sequences) == _MAX_OPEN:
            fullest = free.index(min(free))
            packed.append(open_sequences.pop(fullest))
            free.pop(fullest)
        open_sequences.append([index])
        free.append(capacity - length)
    return packed + open_sequences


def group_documents(lengths: Sequence[int], groups: int | None = None) -> list[list[int]]:
    """Returns the documents of each pass.

    Args:
        lengths: tokens of each document.
        groups: the most passes; ``None`` for the fewest, up to 8, with at most 5 % padding.
    """
    if groups is not None:
        return group_by_length(lengths, groups)
    split: list[list[int]] = []
    for passes in range(1, _MAX_PASSES + 1):
        split = group_by_length(lengths, passes)
        padded = sum(len(group) * max(lengths[index] for index in group) for group in split)
        if padded <= (1 + _PADDING) * sum(lengths):
            break
    return split


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Whole-word masking (Devlin et al. 2019, with the whole words of their later release).

    Each word is chosen with probability `rate`, with all its tokens, and at least one word per sequence. Of the chosen
    tokens 80 % become [MASK], 10 % a random token, and 10 % stay unchanged.

    Attributes:
        rate: the probability of each word.
        mask: the id of [MASK].
        plain: the ids that random tokens are drawn from: all but the special ones.
    """

    rate: float
    mask: int
    plain: NDArray[np.int32]

    def __call__(
        self, ids: NDArray[np.int32], begins: NDArray[np.bool_], stream: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns masked ids, and labels: the original id of each chosen token, −100 for all others.

        Args:
            ids: the ids of a sequence, without special tokens.
            begins: whether each token begins a word.
            stream: the source of randomness.
        """
        word = np.cumsum(begins) - 1
        words = int(word[-1]) + 1
        chosen = stream.random(words) < self.rate
        if not chosen.any():
            chosen[stream.integers(words)] = True
        predicted = chosen[word]
        draw = stream.random(len(ids))
        random_ids = self.plain[stream.integers(len(self.plain), size=len(ids))]
        inputs = np.where(draw < MASKED, self.mask, np.where(draw < REPLACED, random_ids, ids))
        return np.where(predicted, inputs, ids).astype(np.int64), np.where(predicted, ids, IGNORED).astype(np.int64)


class PackedSequences(Dataset[tuple[int, list[int]]]):
    """Packed documents as a dataset of sequence numbers; `batch` builds the inputs of a step.

    Args:
        documents: the documents' ids.
        special_ids: the special ids before and after each document.
        capacity: the most tokens of a sequence, special tokens included.
        masking: the masking.
        seed: of packing and masks. The masks of a sequence depend only on it, the epoch and the sequence's number.
    """

    def __init__(
        self, documents: Documents, special_ids: tuple[list[int], list[int]], capacity: int, masking: Masking, seed: int
    ) -> None:
        self.documents, self.masking, self.seed = documents, masking, seed
        self.before, self.after = (np.array(ids, dtype=np.int64) for ids in special_ids)
        self.packed = pack_documents(
            (documents.lengths() + len(self.before) + len(self.after)).tolist(), capacity, seed
        )

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        return index

    def batch(self, rows: Sequence[int], epoch: int, groups: int | None = None, work: Work | None = None) -> list[Any]:
        """Returns the passes of sequences: ids, mask and labels of documents of similar length, padded on the right.

        Args:
            rows: the sequences' numbers.
            epoch: from 0; each epoch has different masks.
            groups: see `group_documents`.
            work: counts the passes; ``None`` for no counting.
        """
        masked = [document for row in rows for document in self._masked(row, epoch)]
        lengths = [len(ids) for ids, _ in masked]
        passes = []
        for group in group_documents(lengths, groups):
            if work is not None:
                work.add([lengths[index] for index in group])
            passes.append(_padded([masked[index] for index in group]))
        return passes

    def _masked(self, row: int, epoch: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Returns the masked documents of a sequence with their special ids, and their labels."""
        parts = [self.documents[index] for index in self.packed[row]]
        begins = np.concatenate([begins for _, begins in parts])
        starts = np.cumsum([0, *(len(ids) for ids, _ in parts)])
        begins[starts[:-1]] = True  # a document may start within a word
        stream = np.random.default_rng([self.seed, epoch, row])
        ids, labels = self.masking(np.concatenate([ids for ids, _ in parts]), begins, stream)
        ignored = [np.full(len(part), IGNORED) for part in (self.before, self.after)]
        return [
            (
                np.concatenate((self.before, ids[start:end], self.after)),
                np.concatenate((ignored[0], labels[start:end], ignored[1])),
            )
            for start, end in itertools.pairwise(starts)
        ]


def _padded(rows: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    out = {
        "input_ids": torch.zeros(len(rows), longest, dtype=torch.int64),
        "attention_mask": torch.zeros(len(rows), longest, dtype=torch.int64),
        "labels": torch.full((len(rows), longest), IGNORED),
    }
    for row, (ids, labels) in enumerate(rows):
        out["input_ids"][row, : len(ids)] = torch.from_numpy(ids)
        out["attention_mask"][row, : len(ids)] = 1
        out["labels"][row, : len(ids)] = torch.from_numpy(labels)
    return out
