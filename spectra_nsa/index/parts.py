"""What an index can be searched by. Each part keeps its own files in every segment, for the same documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.index.hits import Hits

# Kind of part → where its class is. A new kind of index is a class with these methods and a line here.
_PARTS = {
    "postings": ("spectra_nsa.index.sparse.part", "PostingsPart"),
    "bm25": ("spectra_nsa.index.sparse.bm25", "BM25Part"),
    "vectors": ("spectra_nsa.index.dense", "VectorsPart"),
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A segment that is merged into another one.

    Attributes:
        folder: its folder.
        documents: how many it has.
        kept: the positions of those that are kept, ascending.
    """

    folder: Path
    documents: int
    kept: NDArray[np.int64]


class PartSegment(Protocol):
    """A part's files in one segment, opened."""

    def search(self, queries: Any, k: int, dead: NDArray[np.bool_]) -> Hits:
        """Returns the k best documents of each query.

        Args:
            queries: what `Part.prepare` returned.
            k: hits per query.
            dead: which documents are deleted; empty if none is.
        """
        ...

    def scores(self, queries: Any, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the scores (Q, C) of documents of this segment; positions of −1 get any score."""
        ...

    def check(self) -> None:
        """Reads everything and checks that it holds together.

        Raises:
            SpectraError: it does not.
        """
        ...


class Part(Protocol):
    """A way to search an index: its settings, and how its files are written, merged and opened."""

    def settings(self) -> dict[str, Any]:
        """Returns its kind and settings, for the manifest."""
        ...

    def count(self, rows: Any) -> int:
        """Returns the number of documents in `rows`, after checking them.

        Raises:
            SpectraError: this part cannot hold such rows.
        """
        ...

    def write(self, folder: Path, rows: Any) -> None:
        """Writes the rows of a new segment."""
        ...

    def merge(self, folder: Path, sources: Sequence[Source]) -> None:
        """Writes the rows of a new segment that are kept of others, in order."""
        ...

    def open(self, folder: Path, documents: int) -> PartSegment:
        """Opens its files in a segment."""
        ...

    def prepare(self, queries: Any, segments: Sequence[Any]) -> Any:
        """Checks queries and weights them by what all segments hold.

        Raises:
            SpectraError: the queries do not fit this part.
        """
        ...

    def query_count(self, prepared: Any) -> tuple[int, int]:
        """Returns the number of queries that `prepare` returned, and how many of them have no active dimension."""
        ...


def open_part(settings: Mapping[str, Any], where: str) -> Part:
    """Returns the part that the manifest describes.

    Args:
        settings: from `Part.settings`.
        where: the index, for the message.

    Raises:
        SpectraError: its kind or settings are unknown.
    """
    facts = dict(settings)
    kind = facts.pop("kind", None)
    if not isinstance(kind, str) or kind not in _PARTS:
        raise SpectraError(f"{where} has a part of the unknown kind {kind!r}. Use the version that wrote it.")
    module, name = _PARTS[kind]
    try:
        part: Part = getattr(import_module(module), name)(**facts)
    except (TypeError, ValueError) as error:
        if isinstance(error, SpectraError):
            raise
        raise SpectraError(
            f"{where} describes a part of kind {kind} in a way that is not understood ({error})."
        ) from error
    return part
