"""Documents packed into sequences of about equal length, and what of them is masked.

A sequence is a list of documents that together fit the model's longest text. The model never sees it as one text: its
documents are computed in passes of like length, so that no token attends to another document, each has positions
from 0 and, by batch invariance, the states that it has alone, for every kind of attention and mixer. What packing
gives is steps of equally many tokens.
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

from spectra_nsa.tokens.length_batches import Work, group_by_length
from spectra_nsa.training.data.documents import Documents

IGNORED = -100  # the label of a token that is not guessed
MASKED, REPLACED = 0.8, 0.9  # up to the first share [MASK], up to the second a random token, the rest as they are
_MAX_PASSES = 8  # passes a batch
_PADDING = 0.05  # of the tokens, that is not worth another pass
_MAX_OPEN = 64  # sequences that still take documents while packing


def pack_documents(lengths: Sequence[int], room: int, seed: int) -> list[list[int]]:
    """Spreads documents over sequences of at most `room` tokens, in an order that the seed decides.

    Best fit over the 64 sequences that are open: each document goes where it leaves the least room.

    Args:
        lengths: tokens of each document, each at most `room`.
        room: tokens of a sequence.
        seed: see above.

    Returns:
        the documents of each sequence; together every one once.
    """
    packed: list[list[int]] = []
    held: list[list[int]] = []
    left: list[int] = []
    for index in np.random.default_rng(seed).permutation(len(lengths)).tolist():
        length = int(lengths[index])
        fits = [(space, place) for place, space in enumerate(left) if space >= length]
        if fits:
            _, place = min(fits)
            held[place].append(index)
            left[place] -= length
            continue
        if len(held) == _MAX_OPEN:
            fullest = left.index(min(left))
            packed.append(held.pop(fullest))
            left.pop(fullest)
        held.append([index])
        left.append(room - length)
    return packed + held


def group_documents(lengths: Sequence[int], groups: int | None = None) -> list[list[int]]:
    """The documents of each pass.

    Args:
        lengths: tokens of each document.
        groups: the most passes; ``None`` for as few, up to 8, as leave a twentieth of padding.
    """
    if groups is not None:
        return group_by_length(lengths, groups)
    found: list[list[int]] = []
    for passes in range(1, _MAX_PASSES + 1):
        found = group_by_length(lengths, passes)
        padded = sum(len(group) * max(lengths[index] for index in group) for group in found)
        if padded <= (1 + _PADDING) * sum(lengths):
            break
    return found


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Whole-word masking (Devlin et al. 2019, with the whole words of their later release).

    Each word is chosen with probability `rate`, all its tokens at once, and at least one word of a sequence. Of the
    chosen tokens 80 % become [MASK], 10 % a random token and 10 % stay.

    Attributes:
        rate: see above.
        mask: the id of [MASK].
        plain: ids that may stand in for others: all but the special ones.
    """

    rate: float
    mask: int
    plain: NDArray[np.int32]

    def __call__(
        self, ids: NDArray[np.int32], begins: NDArray[np.bool_], stream: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Masked ids, and labels: the id where it is to be guessed, elsewhere −100.

        Args:
            ids: of a sequence, special ones left out.
            begins: whether a token begins a word.
            stream: all that is random comes from it.
        """
        word = np.cumsum(begins) - 1
        words = int(word[-1]) + 1
        chosen = stream.random(words) < self.rate
        if not chosen.any():
            chosen[stream.integers(words)] = True
        guessed = chosen[word]
        draw = stream.random(len(ids))
        others = self.plain[stream.integers(len(self.plain), size=len(ids))]
        given = np.where(draw < MASKED, self.mask, np.where(draw < REPLACED, others, ids))
        return np.where(guessed, given, ids).astype(np.int64), np.where(guessed, ids, IGNORED).astype(np.int64)


class PackedSequences(Dataset[tuple[int, list[int]]]):
    """Packed documents by the number of their sequence; what a step gets is made by `batch`.

    Args:
        documents: their ids.
        special_ids: the special ids before and after each document.
        room: tokens of a sequence, special ones included.
        masking: what is masked.
        seed: of packing and masks; the masks of a sequence depend on it, the epoch and the sequence's number alone.
    """

    def __init__(
        self, documents: Documents, special_ids: tuple[list[int], list[int]], room: int, masking: Masking, seed: int
    ) -> None:
        self.documents, self.room, self.masking, self.seed = documents, room, masking, seed
        self.before, self.after = (np.array(ids, dtype=np.int64) for ids in special_ids)
        self.packed = pack_documents((documents.lengths() + len(self.before) + len(self.after)).tolist(), room, seed)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        return index

    def batch(self, rows: Sequence[int], epoch: int, groups: int | None = None, work: Work | None = None) -> list[Any]:
        """The passes of some sequences: ids, mask and labels of documents of like length, padded on the right.

        Args:
            rows: the sequences' numbers.
            epoch: from 0; another one has other masks.
            groups: see `group_documents`.
            work: counts the passes; ``None`` for no counting.
        """
        found = [one for row in rows for one in self._masked(row, epoch)]
        lengths = [len(ids) for ids, _ in found]
        passes = []
        for group in group_documents(lengths, groups):
            if work is not None:
                work.add([lengths[place] for place in group])
            passes.append(_padded([found[place] for place in group]))
        return passes

    def _masked(self, row: int, epoch: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The documents of a sequence with their special ids, masked, and their labels."""
        parts = [self.documents[index] for index in self.packed[row]]
        begins = np.concatenate([begins for _, begins in parts])
        starts = np.cumsum([0, *(len(ids) for ids, _ in parts)])
        begins[starts[:-1]] = True  # a document that was cut within a word
        stream = np.random.default_rng([self.seed, epoch, row])
        ids, labels = self.masking(np.concatenate([ids for ids, _ in parts]), begins, stream)
        none = [np.full(len(part), IGNORED) for part in (self.before, self.after)]
        return [
            (
                np.concatenate((self.before, ids[start:end], self.after)),
                np.concatenate((none[0], labels[start:end], none[1])),
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
    for place, (ids, labels) in enumerate(rows):
        out["input_ids"][place, : len(ids)] = torch.from_numpy(ids)
        out["attention_mask"][place, : len(ids)] = 1
        out["labels"][place, : len(ids)] = torch.from_numpy(labels)
    return out
