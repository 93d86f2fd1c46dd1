"""Exact and near-duplicate texts. Near duplicates are found by the Jaccard similarity of word shingles.

Texts are compared without regard to case, white space and the composition of accents (`core.strings.comparable`).
J(a, b) = |A ∩ B| / |A ∪ B| over the sets of shingles, each of `size` consecutive words (`core.strings.words`). The
search is exact, not sampled: two sets with J ≥ t share an element among the |A| - ⌈t|A|⌉ + 1 rarest of A and likewise
of B, so only texts that share a rare shingle are compared (prefix filtering, Chaudhuri et al. 2006). Everything runs on
numpy arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import UsageError
from spectra_nsa.core.strings import comparable, words
from spectra_nsa.text.rows import RetrievalSet, TextSet

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_CHUNK = 2_000_000  # elements of the temporary arrays


def exact_duplicates(texts_a: Sequence[str], texts_b: Sequence[str] | None = None) -> Bools:
    """Marks the texts of `texts_a` that are also in `texts_b`, as `comparable` compares them.

    Args:
        texts_a: N texts.
        texts_b: the texts to compare with; ``None`` marks repetitions within `texts_a`, except the first occurrence.

    Returns:
        (N,) bool.
    """
    if texts_b is not None:
        known = {comparable(text) for text in texts_b}
        return np.array([comparable(text) in known for text in texts_a], dtype=bool)
    seen: set[str] = set()
    marks = []
    for key in map(comparable, texts_a):
        marks.append(key in seen)
        seen.add(key)
    return np.array(marks, dtype=bool)


def near_duplicates(
    texts_a: Sequence[str], texts_b: Sequence[str] | None, threshold: float = 0.8, *, size: int = 3
) -> Bools:
    """Marks the texts of `texts_a` that have a near duplicate in `texts_b`.

    Args:
        texts_a: N texts.
        texts_b: the texts to compare with; ``None`` compares with the earlier texts of `texts_a`, so the first of each
            group of near duplicates is not marked.
        threshold: the minimum Jaccard similarity, above 0 and at most 1.
        size: words per shingle. A text with fewer words is one shingle.

    Returns:
        (N,) bool; exact duplicates are near duplicates too.

    Raises:
        UsageError: `threshold` or `size` is out of range.
    """
    if not 0 < threshold <= 1 or size < 1:
        raise UsageError(f"threshold must be in (0, 1] and size at least 1, not {threshold} and {size}.")
    exact = exact_duplicates(texts_a, texts_b)
    if texts_b is None:
        return exact if len(exact) < 2 else exact | _similar(_shingles(texts_a, size), len(texts_a), threshold, True)
    keys_b = list(dict.fromkeys(map(comparable, texts_b)))
    keys_a = [comparable(text) for text in texts_a]
    rest_a = list(dict.fromkeys(key for key, done in zip(keys_a, exact, strict=True) if not done))
    if not rest_a or not keys_b:
        return exact
    near = dict(zip(rest_a, _similar(_shingles(rest_a + keys_b, size), len(rest_a), threshold).tolist(), strict=True))
    return exact | np.array([near.get(key, False) for key in keys_a], dtype=bool)


def alike(texts: Sequence[str], a: Ints, b: Ints, threshold: float = 0.8, *, size: int = 3) -> Bools:
    """Returns whether text `a[i]` and text `b[i]` are near duplicates, for each i.

    Args:
        texts: the texts.
        a, b: (N,) the numbers of the texts to compare.
        threshold, size: see `near_duplicates`.

    Returns:
        (N,) bool.
    """
    keys = [comparable(text) for text in texts]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    distinct = np.array([numbers[key] for key in keys], dtype=np.int64)
    a, b = distinct[a], distinct[b]
    sets = _shingles(list(numbers), size) if numbers else _Sets(np.zeros(0, dtype=np.int64), np.zeros(1, np.int64))
    sizes = sets.sizes()
    similar: Bools = a == b
    smaller, larger = np.minimum(sizes[a], sizes[b]), np.maximum(sizes[a], sizes[b])
    index = np.flatnonzero(~similar & (smaller >= threshold * larger - 1e-9))
    member = sets.owners() * (sets.items.max(initial=0) + 1) + sets.items
    for part in _by_weight(sizes[a[index]]):
        part_a, part_b = a[index[part]], b[index[part]]
        shared = _shared(sets, member, part_a, part_b)
        similar[index[part]] = shared >= threshold * (sizes[part_a] + sizes[part_b] - shared) - 1e-9
    return similar


class _Sets(NamedTuple):
    """Consecutive sets of small integers: set i is `items[starts[i] : starts[i + 1]]`, rarest first."""

    items: Ints
    starts: Ints

    def sizes(self) -> Ints:
        return np.diff(self.starts)

    def owners(self) -> Ints:
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes())


def _shingles(texts: Sequence[str], size: int) -> _Sets:
    """Returns the set of shingles of each text. The number of a shingle is its rank by rarity over all texts."""
    vocabulary: dict[str, int] = {}
    numbers: list[int] = []
    counts = []
    for text in texts:
        parts = words(text, punctuation=True) or [""]
        parts += ["\0"] * (size - len(parts))
        numbers += [vocabulary.setdefault(word, len(vocabulary)) for word in parts]
        counts.append(len(parts))
    array, lengths = np.array(numbers, dtype=np.uint64), np.array(counts, dtype=np.int64)
    mixed = _mix(array)
    hashes = np.zeros(len(array) - size + 1, dtype=np.uint64)
    for i in range(size):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + mixed[i : i + len(hashes)]
    owner = np.repeat(np.arange(len(texts)), lengths)
    within = owner[: len(hashes)] == owner[size - 1 :]  # no shingle extends into the next text
    return _sets(owner[: len(hashes)][within], hashes[within], len(texts))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads small integers over 64 bits (the finalizer of splitmix64)."""
    values = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _sets(owners: Ints, hashes: NDArray[np.uint64], n: int) -> _Sets:
    """Returns sets without repetitions, with elements renumbered from the rarest to the most frequent."""
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
    """Marks the first `n_a` sets that are similar to one of the rest, or with `among_themselves` to an earlier one."""
    sizes, owners = sets.sizes(), sets.owners()
    rank = np.arange(len(sets.items)) - sets.starts[owners]
    rare = rank < sizes[owners] - np.ceil(threshold * sizes[owners] - 1e-9).astype(np.int64) + 1
    in_a = owners < n_a
    index = np.flatnonzero(rare if among_themselves else rare & ~in_a)
    index = index[np.argsort(sets.items[index], kind="stable")]
    posted, posted_owner = sets.items[index], owners[index]
    member = owners * (sets.items.max() + 1) + sets.items  # sorted: one number for each (set, element)
    similar = np.zeros(n_a, dtype=bool)
    for probes in _chunks(np.flatnonzero(rare & in_a), sets, posted):
        low, high = np.searchsorted(posted, sets.items[probes]), np.searchsorted(posted, sets.items[probes], "right")
        count = high - low
        a = np.repeat(owners[probes], count)
        b = posted_owner[np.repeat(low - np.cumsum(count) + count, count) + np.arange(count.sum())]
        fits = (np.minimum(sizes[a], sizes[b]) >= threshold * np.maximum(sizes[a], sizes[b]) - 1e-9) & ~similar[a]
        if among_themselves:
            fits &= b < a
        pairs = np.unique(a[fits] * len(sizes) + b[fits])
        a, b = np.divmod(pairs, len(sizes))
        for part in _by_weight(sizes[a]):
            shared = _shared(sets, member, a[part], b[part])
            union = sizes[a[part]] + sizes[b[part]] - shared
            similar[a[part][shared >= threshold * union - 1e-9]] = True
    return similar


def _chunks(probes: Ints, sets: _Sets, posted: Ints) -> Iterator[Ints]:
    """Yields `probes` in chunks whose postings fit in memory."""
    items = sets.items[probes]
    count = np.searchsorted(posted, items, "right") - np.searchsorted(posted, items)
    probes, count = probes[count > 0], count[count > 0]
    for part in _by_weight(count):
        yield probes[part]


def _by_weight(weights: Ints) -> Iterator[slice]:
    """Yields slices whose weights sum to about `_CHUNK` each."""
    if len(weights) == 0:
        return
    bins = np.cumsum(weights) // _CHUNK
    edges = np.flatnonzero(np.diff(bins)) + 1
    for start, stop in zip([0, *edges], [*edges, len(weights)], strict=True):
        yield slice(int(start), int(stop))


def _shared(sets: _Sets, member: Ints, a: Ints, b: Ints) -> Ints:
    """Returns |A ∩ B| for each pair of sets."""
    sizes = sets.sizes()[a]
    ends = np.cumsum(sizes)
    position = np.repeat(sets.starts[a] - ends + sizes, sizes) + np.arange(ends[-1])
    keys = np.repeat(b, sizes) * (sets.items.max() + 1) + sets.items[position]
    index = np.minimum(np.searchsorted(member, keys), len(member) - 1)
    return np.add.reduceat((member[index] == keys).astype(np.int64), ends - sizes)


def texts_of(data: TextSet | RetrievalSet) -> list[str]:
    """Returns every text: of all text columns, or of corpus and queries."""
    if isinstance(data, RetrievalSet):
        return [*data.corpus.values(), *data.queries.values()]
    return [text for column in data.text_columns for text in data.dataset[column]]


def overlap(train: TextSet, evaluation: TextSet | RetrievalSet, *, threshold: float = 0.8) -> dict[str, Any]:
    """Counts the training rows whose texts are also in an evaluation set.

    Args:
        train: the training rows.
        evaluation: the data the model will be evaluated on.
        threshold: the minimum Jaccard similarity of a near duplicate.

    Returns:
        ``{"against", "threshold", "rows", "rows_affected", "columns": {column: {"exact", "near", "example"}}}``:
        counts of rows. `near` includes `exact`. `example` is one of the duplicated training texts, or ``None``.
        Also `quarantined` and `notes`, those of `evaluation`.
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
        "rows_affected": int(affected.sum()), "columns": columns, "quarantined": evaluation.quarantined,
        "notes": list(evaluation.notes),
    }  # fmt: skip
