"""The texts that an analysis of experts reads: domains, each from a source of its own."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.evaluation.sources import ANY_TEXTS, Sources
from spectra_nsa.text.shared_columns import SharedColumns

T = TypeVar("T")
_READ = 50  # rows for each one that is drawn: neighbors in a file are often alike
_SIDES = {"pairs": ("anchor", "positive"), "triplets": ("anchor", "positive"), "scored": ("sentence1", "sentence2")}


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The texts of a domain.

    Attributes:
        name: as the user calls it.
        queries: of pairs, one for each document; empty for plain texts.
        documents: the documents, or the plain texts.
    """

    name: str
    queries: list[str]
    documents: list[str]


def read_domains(
    specifications: Sequence[str],
    *,
    limit: int,
    seed: int = 0,
    columns: Mapping[str, str] | SharedColumns | None = None,
) -> tuple[list[Domain], list[str]]:
    """Reads ``NAME=SOURCE`` specifications.

    Args:
        specifications: a name and a source of texts or pairs each.
        limit: the largest number of texts or pairs of a domain, drawn from the first 50 times as many rows.
        seed: of the draw.
        columns: role → column; ``None`` guesses the roles.

    Returns:
        the domains, and notes on skipped rows.

    Raises:
        UsageError: a specification has no name, or two have the same.
        SpectraError: a source is missing or has no texts.
    """
    from spectra_nsa.text.sources import check_source

    named: dict[str, str] = {}
    for specification in specifications:
        name, equals, source = specification.partition("=")
        if not equals or not name or not source:
            raise UsageError(
                f"--texts {specification}: texts need the name of their domain, as in --texts medical={source or name}."
            )
        if name in named:
            raise UsageError(f"--texts names the domain {name!r} twice: give each source a name of its own.")
        check_source(source)
        named[name] = source
    sources = Sources(limit=_READ * limit, columns=columns)
    domains = []
    for name, source in named.items():
        rows = sources.rows(source, ANY_TEXTS, f"texts {name}")
        if rows.kind in _SIDES:
            left, right = (list(rows.dataset[column]) for column in _SIDES[rows.kind])
            pairs = _drawn([pair for pair in zip(left, right, strict=True) if all(pair)], limit, seed)
            domain = Domain(name=name, queries=[query for query, _ in pairs], documents=[text for _, text in pairs])
        else:
            found = _drawn([text for text in rows.dataset["text"] if text], limit, seed)
            domain = Domain(name=name, queries=[], documents=found)
        if not domain.documents:
            raise SpectraError(f"--texts {name}={source}: there are no texts.")
        domains.append(domain)
    sources.check()
    return domains, sources.notes


def _drawn(rows: list[T], limit: int, seed: int) -> list[T]:
    """Returns some of the distinct rows in random order, so that a part of them is as good a sample."""
    distinct = list(dict.fromkeys(rows))
    return random.Random(seed).sample(distinct, min(limit, len(distinct)))


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """The texts of all domains as one list.

    Attributes:
        texts: domain by domain, the queries before the documents.
        domain_T: the domain of each.
        pairs_P2: the positions of query and document of each pair.
    """

    texts: list[str]
    domain_T: NDArray[np.int64]
    pairs_P2: NDArray[np.int64]

    @property
    def query_T(self) -> NDArray[np.bool_]:
        """Whether each text is the query of a pair, which may have a prompt of its own: (T,)."""
        found_T = np.zeros(len(self.texts), dtype=bool)
        found_T[self.pairs_P2[:, 0]] = True
        return found_T

    @property
    def unit_T(self) -> NDArray[np.int64]:
        """A number that the two texts of a pair share, and no others: (T,)."""
        unit_T = np.arange(len(self.texts))
        unit_T[self.pairs_P2[:, 1]] = self.pairs_P2[:, 0]
        return unit_T


def text_table(domains: Sequence[Domain]) -> TextTable:
    """Returns the texts of all domains."""
    texts: list[str] = []
    domain_of: list[int] = []
    pairs: list[tuple[int, int]] = []
    for number, domain in enumerate(domains):
        first = len(texts)
        texts += [*domain.queries, *domain.documents]
        domain_of += [number] * (len(texts) - first)
        count = len(domain.queries)
        pairs += [(first + at, first + count + at) for at in range(count)]
    return TextTable(
        texts=texts,
        domain_T=np.array(domain_of, dtype=np.int64),
        pairs_P2=np.array(pairs, dtype=np.int64).reshape(-1, 2),
    )


def plain_table(texts: Sequence[str]) -> TextTable:
    """Returns texts of one domain, without pairs."""
    return text_table([Domain(name="", queries=[], documents=list(texts))])
