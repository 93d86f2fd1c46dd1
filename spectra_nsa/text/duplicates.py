"""Texts that are the same, or nearly: exact copies, and the Jaccard similarity of word shingles.

J(a, b) = |A ∩ B| / |A ∪ B| over the sets of `size` consecutive words. The search is exact, not sampled: two sets with
J ≥ t share an element among the |A| - ⌈t|A|⌉ + 1 rarest of A and likewise of B, so only texts that share a rare
shingle are compared (prefix filtering). All of it is numpy on whole arrays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import UsageError
from spectra_nsa.text.rows import RetrievalSet, TextSet

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_WORD = re.compile(r"\w+|[^\w\s]")
_CHUNK = 2_000_000  # elements of the temporary arrays


def normalised(text: str) -> str:
    """The form in which two texts count as exactly the same: white space collapsed, case ignored."""
    return " ".join(text.casefold().split())


def exact_duplicates(texts_a: Sequence[str], texts_b: Sequence[str] | None = None) -> Bools:
    """Which texts of `texts_a` are also in `texts_b`, white space and case aside.

    Args:
        texts_a: N texts.
        texts_b: what to look in; ``None`` marks the repetitions within `texts_a`, not their first occurrence.

    Returns:
        (N,) bool.
    """
    if texts_b is not None:
        known = {normalised(text) for text in texts_b}
        return np.array([normalised(text) in known for text in texts_a], dtype=bool)
    seen: set[str] = set()
    marks = []
    for key in map(normalised, texts_a):
        marks.append(key in seen)
        seen.add(key)
    return np.array(marks, dtype=bool)


def near_duplicates(
    texts_a: Sequence[str], texts_b: Sequence[str] | None, threshold: float = 0.8, *, size: int = 3
) -> Bools:
    """Which texts of `texts_a` have a near-duplicate in `texts_b`.

    Args:
        texts_a: N texts.
        texts_b: what to look in; ``None`` looks among the earlier texts of `texts_a`, so that of each group of
            near-duplicates the first is not marked.
        threshold: the least Jaccard similarity, above 0 and at most 1.
        size: words a shingle; a text with fewer words is one shingle.

    Returns:
        (N,) bool; copies are near-duplicates too.

    Raises:
        UsageError: `threshold` or `size` is out of range.
    """
    if not 0 < threshold <= 1 or size < 1:
        raise UsageError(f"threshold must be in (0, 1] and size at least 1, not {threshold} and {size}.")
    found = exact_duplicates(texts_a, texts_b)
    if texts_b is None:
        return found if len(found) < 2 else found | _similar(_shingles(texts_a, size), len(texts_a), threshold, True)
    keys_b = list(dict.fromkeys(map(normalised, texts_b)))
    keys_a = [normalised(text) for text in texts_a]
    open_a = list(dict.fromkeys(key for key, done in zip(keys_a, found, strict=True) if not done))
    if not open_a or not keys_b:
        return found
    near = dict(zip(open_a, _similar(_shingles(open_a + keys_b, size), len(open_a), threshold).tolist(), strict=True))
    return found | np.array([near.get(key, False) for key in keys_a], dtype=bool)


def alike(texts: Sequence[str], a: Ints, b: Ints, threshold: float = 0.8, *, size: int = 3) -> Bools:
    """Whether text `a[i]` and text `b[i]` are near-duplicates, for each i: (N,) bool.

    Args:
        texts: the texts.
        a, b: (N,) which of them are compared.
        threshold, size: see `near_duplicates`.
    """
    keys = [normalised(text) for text in texts]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    distinct = np.array([numbers[key] for key in keys], dtype=np.int64)
    a, b = distinct[a], distinct[b]
    sets = _shingles(list(numbers), size) if numbers else _Sets(np.zeros(0, dtype=np.int64), np.zeros(1, np.int64))
    sizes = sets.sizes()
    found: Bools = a == b
    less, more = np.minimum(sizes[a], sizes[b]), np.maximum(sizes[a], sizes[b])
    index = np.flatnonzero(~found & (less >= threshold * more - 1e-9))
    member = sets.owners() * (sets.items.max(initial=0) + 1) + sets.items
    for part in _by_weight(sizes[a[index]]):
        one, other = a[index[part]], b[index[part]]
        shared = _shared(sets, member, one, other)
        found[index[part]] = shared >= threshold * (sizes[one] + sizes[other] - shared) - 1e-9
    return found


class _Sets(NamedTuple):
    """Sets of small integers, one after another: set i is `items[starts[i] : starts[i + 1]]`, rarest first."""

    items: Ints
    starts: Ints

    def sizes(self) -> Ints:
        return np.diff(self.starts)

    def owners(self) -> Ints:
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes())


def _shingles(texts: Sequence[str], size: int) -> _Sets:
    """Each text's set of shingles. A shingle's number is its rank by rarity over all texts."""
    vocabulary: dict[str, int] = {}
    words: list[int] = []
    counts = []
    for text in texts:
        found = _WORD.findall(text) or [""]
        found += ["\0"] * (size - len(found))
        words += [vocabulary.setdefault(word, len(vocabulary)) for word in found]
        counts.append(len(found))
    array, lengths = np.array(words, dtype=np.uint64), np.array(counts, dtype=np.int64)
    mixed = _mix(array)
    hashes = np.zeros(len(array) - size + 1, dtype=np.uint64)
    for i in range(size):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + mixed[i : i + len(hashes)]
    owner = np.repeat(np.arange(len(texts)), lengths)
    whole = owner[: len(hashes)] == owner[size - 1 :]  # no shingle reaches into the next text
    return _sets(owner[: len(hashes)][whole], hashes[whole], len(texts))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads small integers over 64 bits (the finaliser of splitmix64)."""
    values = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _sets(owners: Ints, hashes: NDArray[np.uint64], n: int) -> _Sets:
    """Sets without repetitions, their elements renumbered from the rarest to the most frequent."""
    distinct, ids = np.unique(hashes, return_inverse=True)
    pairs = np.unique(owners * len(distinct) + ids)
    owners, ids = np.divmod(pairs, len(distinct))
    order = np.argsort(np.bincount(ids, minlength=len(distinct)), kind="stable")
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[order] = np.arange(len(distinct))
    keys = np.sort(owners * len(distinct) + rank[ids])
    owners, items = np.divmod(keys, len(distinct))
    return _Sets(items, np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=n))]).astype(np.int64))


def _similar(sets: _Sets, n_a: int, threshold: float, among_themselves: bool = False) -> Bools:
    """Which of the first `n_a` sets is similar to one of the others, or to an earlier one of themselves."""
    sizes, owners = sets.sizes(), sets.owners()
    place = np.arange(len(sets.items)) - sets.starts[owners]
    rare = place < sizes[owners] - np.ceil(threshold * sizes[owners] - 1e-9).astype(np.int64) + 1
    in_a = owners < n_a
    index = np.flatnonzero(rare if among_themselves else rare & ~in_a)
    index = index[np.argsort(sets.items[index], kind="stable")]
    posted, posted_owner = sets.items[index], owners[index]
    member = owners * (sets.items.max() + 1) + sets.items  # sorted: one number for each (set, element)
    found = np.zeros(n_a, dtype=bool)
    for wanted in _chunks(np.flatnonzero(rare & in_a), sets, posted):
        low, high = np.searchsorted(posted, sets.items[wanted]), np.searchsorted(posted, sets.items[wanted], "right")
        count = high - low
        a = np.repeat(owners[wanted], count)
        b = posted_owner[np.repeat(low - np.cumsum(count) + count, count) + np.arange(count.sum())]
        fits = (np.minimum(sizes[a], sizes[b]) >= threshold * np.maximum(sizes[a], sizes[b]) - 1e-9) & ~found[a]
        if among_themselves:
            fits &= b < a
        pairs = np.unique(a[fits] * len(sizes) + b[fits])
        a, b = np.divmod(pairs, len(sizes))
        for part in _by_weight(sizes[a]):
            shared = _shared(sets, member, a[part], b[part])
            union = sizes[a[part]] + sizes[b[part]] - shared
            found[a[part][shared >= threshold * union - 1e-9]] = True
    return found


def _chunks(wanted: Ints, sets: _Sets, posted: Ints) -> Iterator[Ints]:
    """`wanted` in pieces whose postings fit the memory."""
    items = sets.items[wanted]
    count = np.searchsorted(posted, items, "right") - np.searchsorted(posted, items)
    wanted, count = wanted[count > 0], count[count > 0]
    for part in _by_weight(count):
        yield wanted[part]


def _by_weight(weights: Ints) -> Iterator[slice]:
    """Slices whose weights sum to about `_CHUNK` each."""
    if len(weights) == 0:
        return
    bins = np.cumsum(weights) // _CHUNK
    edges = np.flatnonzero(np.diff(bins)) + 1
    for start, stop in zip([0, *edges], [*edges, len(weights)], strict=True):
        yield slice(int(start), int(stop))


def _shared(sets: _Sets, member: Ints, a: Ints, b: Ints) -> Ints:
    """|A ∩ B| for each pair of sets."""
    sizes = sets.sizes()[a]
    ends = np.cumsum(sizes)
    place = np.repeat(sets.starts[a] - ends + sizes, sizes) + np.arange(ends[-1])
    keys = np.repeat(b, sizes) * (sets.items.max() + 1) + sets.items[place]
    at = np.minimum(np.searchsorted(member, keys), len(member) - 1)
    return np.add.reduceat((member[at] == keys).astype(np.int64), ends - sizes)


def texts_of(data: TextSet | RetrievalSet) -> list[str]:
    """Every text of a set: all text columns, or corpus and queries."""
    if isinstance(data, RetrievalSet):
        return [*data.corpus.values(), *data.queries.values()]
    return [text for column in data.text_columns for text in data.dataset[column]]


def overlap(train: TextSet, evaluation: TextSet | RetrievalSet, *, threshold: float = 0.8) -> dict[str, Any]:
    """How much of the training texts is in an evaluation set.

    Args:
        train: the rows to be trained on.
        evaluation: what the model will be measured on.
        threshold: the least Jaccard similarity of a near-duplicate.

    Returns:
        ``{"against", "threshold", "rows", "rows_affected", "columns": {column: {"exact", "near", "example"}}}``:
        counts of rows; `near` includes `exact`; `example` is one training text that was found, or ``None``.
    """
    known = texts_of(evaluation)
    affected = np.zeros(len(train.dataset), dtype=bool)
    columns: dict[str, Any] = {}
    for column in train.text_columns:
        texts = list(train.dataset[column])
        exact, near = exact_duplicates(texts, known), near_duplicates(texts, known, threshold)
        example = texts[int(np.argmax(near))] if near.any() else None
        columns[column] = {"exact": int(exact.sum()), "near": int(near.sum()), "example": example}
        affected |= near
    return {
        "against": evaluation.name, "threshold": threshold, "rows": len(affected),
        "rows_affected": int(affected.sum()), "columns": columns,
    }  # fmt: skip
