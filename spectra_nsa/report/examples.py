"""The choice of example queries: where two systems differ most, and where neither finds the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MISSED = 101  # the rank of an answer that is not among the first hundred, for comparisons


class DocumentLike(Protocol):
    """A retrieved document, such as `evaluation`'s `RetrievedDocument`."""

    @property
    def text(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def relevant(self) -> bool: ...


class RankedQueryLike(Protocol):
    """A query with its retrieved documents, such as `evaluation`'s `RankedQuery`."""

    @property
    def query(self) -> str: ...
    @property
    def wanted(self) -> Sequence[str]: ...
    @property
    def retrieved(self) -> Sequence[DocumentLike]: ...
    @property
    def rank(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True)
class Example:
    """One query and what every system retrieved for it.

    Attributes:
        query: the query's text.
        label: why it is shown.
        by_system: (system, its documents for this query).
    """

    query: str
    label: str
    by_system: Sequence[tuple[str, RankedQueryLike]]

    @property
    def wanted(self) -> str:
        """The text of the first relevant document; ``""`` if it is not among the documents."""
        answers = self.by_system[0][1].wanted
        return answers[0] if answers else ""


def select_examples(hits: Mapping[str, Sequence[RankedQueryLike]], *, each: int = 4) -> list[Example]:
    """Chooses up to `each` queries per group, by rank and then by order, so that the choice is deterministic.

    With two or more systems, the groups are the queries on which the first system beats the second by most, those on
    which it falls behind by most, and those that neither answers among the first ten. With one system they are the
    queries whose answer has the worst rank, and those whose answer ranks first.

    Args:
        hits: system → one entry per query, in the same order for every system.
        each: queries per group.
    """
    systems = list(hits)
    if not systems or not hits[systems[0]]:
        return []
    ranks = [[query.rank or MISSED for query in hits[system]] for system in systems[:2]]
    first = ranks[0]
    groups: list[tuple[str, list[int]]]
    if len(systems) == 1:
        order = sorted(range(len(first)), key=lambda at: -first[at])
        groups = [
            ("not found first", [at for at in order if first[at] > 1]),
            ("found first", [at for at in range(len(first)) if first[at] == 1]),
        ]
    else:
        second = ranks[1]
        gain = [_rank_cost(second[at]) - _rank_cost(first[at]) for at in range(len(first))]
        order = sorted(range(len(first)), key=lambda at: -gain[at])
        groups = [
            (f"{systems[0]} ahead", [at for at in order if gain[at] > 0]),
            (f"{systems[1]} ahead", [at for at in reversed(order) if gain[at] < 0]),
            ("hard for both", [at for at in range(len(first)) if min(first[at], second[at]) > 10]),
        ]
    return [
        Example(query=hits[systems[0]][at].query, label=label, by_system=[(name, hits[name][at]) for name in systems])
        for label, chosen in groups
        for at in chosen[:each]
    ]


def _rank_cost(rank: int) -> float:
    """Returns −1 / rank, which makes the step from rank 1 to 2 larger than that from 41 to 42."""
    return -1.0 / rank
