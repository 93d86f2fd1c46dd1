"""Which queries to show: where two systems differ most, and where nobody finds the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MISSED = 101  # stands for "not among the first hundred" when ranks are compared


class FoundText(Protocol):
    """One found document."""

    @property
    def text(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def relevant(self) -> bool: ...


class FoundTexts(Protocol):
    """What one query found; `evaluation`'s `QueryHits` is one."""

    @property
    def query(self) -> str: ...
    @property
    def wanted(self) -> Sequence[str]: ...
    @property
    def found(self) -> Sequence[FoundText]: ...
    @property
    def rank(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True)
class Example:
    """One query over all systems.

    Attributes:
        query: its text.
        label: why it is shown.
        by_system: (system, what it found); all of them answer the same query.
    """

    query: str
    label: str
    by_system: Sequence[tuple[str, FoundTexts]]

    @property
    def wanted(self) -> str:
        """The first wanted answer's text; ``""`` when it is not among the documents."""
        answers = self.by_system[0][1].wanted
        return answers[0] if answers else ""


def select_examples(hits: Mapping[str, Sequence[FoundTexts]], *, each: int = 4) -> list[Example]:
    """Up to `each` queries a group, chosen by rank and then by order, so that the choice is repeatable.

    With two systems or more, the groups are where the first beats the second by most ranks, where it falls behind by
    most, and where both miss the first ten. With one system: what it misses by most, and what it finds at once.

    Args:
        hits: system → one entry a query, in the same order for every system.
        each: queries a group.
    """
    systems = list(hits)
    if not systems or not hits[systems[0]]:
        return []
    ranks = [[found.rank or MISSED for found in hits[system]] for system in systems[:2]]
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
        gain = [_steps(second[at]) - _steps(first[at]) for at in range(len(first))]
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


def _steps(rank: int) -> float:
    """From rank 1 to 2 is a larger step than from 41 to 42: −1 / rank."""
    return -1.0 / rank
