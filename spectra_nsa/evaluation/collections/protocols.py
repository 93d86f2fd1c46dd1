"""Protocols: the ways in which one collection is evaluated. Their figures are not comparable with one another.

A protocol is the kind of its task, so that its name stands in every result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spectra_nsa.core.counts import counted


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to evaluate a collection.

    Attributes:
        collection: the collection's name.
        rule: what is searched, in a few words.
        sizes: subset → (queries, candidates) as published; empty if any size is right.
    """

    collection: str
    rule: str
    sizes: Mapping[str, tuple[int, int]]


# Guo et al. 2021 (GraphCodeBERT), table of the cleaned dataset in its repository.
_GRAPHCODEBERT = {
    "python": (14_918, 43_827),
    "php": (14_014, 52_660),
    "go": (8_122, 28_120),
    "java": (10_955, 40_347),
    "javascript": (3_291, 13_981),
    "ruby": (1_261, 4_360),
}
PROTOCOLS: Mapping[str, Protocol] = {
    "csn-graphcodebert": Protocol(
        collection="CodeSearchNet",
        rule="every function of the cleaned dev and test sets is a candidate; MRR over the first 1,000",
        sizes=_GRAPHCODEBERT,
    ),
    "csn-original-999": Protocol(
        collection="CodeSearchNet",
        rule="each query has its function and 999 distractors as candidates; MRR",
        sizes={},
    ),
    "csn-mteb": Protocol(
        collection="CodeSearchNet",
        rule="1,000 queries among their 1,000 functions; nDCG@10",
        sizes=dict.fromkeys(_GRAPHCODEBERT, (1_000, 1_000)),
    ),
    "cosqa-coir": Protocol(
        collection="CoSQA",
        rule="20,604 functions of which 6,267 differ: copies of the answer count as wrong; nDCG@10",
        sizes={"cosqa": (500, 20_604)},
    ),
    "cosqa-distinct": Protocol(
        collection="CoSQA",
        rule="6,267 distinct functions; MRR and nDCG@10",
        sizes={"cosqa": (500, 6_267)},
    ),
}


def protocol_notes(kinds: Iterable[str]) -> list[str]:
    """Returns a note for each collection that some tasks evaluate by several protocols."""
    named: dict[str, list[str]] = {}
    for kind in dict.fromkeys(kinds):
        if kind in PROTOCOLS:
            named.setdefault(PROTOCOLS[kind].collection, []).append(kind)
    return [
        f"{', '.join(names[:-1])} and {names[-1]} are different protocols of {collection}: do not compare their figures"
        for collection, names in named.items()
        if len(names) > 1
    ]


def size_notes(kind: str, subset: str, queries: int, candidates: int) -> list[str]:
    """Returns a note if a set is not of the published size."""
    published = PROTOCOLS[kind].sizes.get(subset)
    if published in (None, (queries, candidates)):
        return []
    wanted_queries, wanted_candidates = published
    return [
        f"{kind} on {subset}: {counted(queries, 'query')} and {candidates:,} candidates, but the published set has "
        f"{wanted_queries:,} and {wanted_candidates:,}: do not compare with published figures"
    ]
