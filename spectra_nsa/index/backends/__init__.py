"""Other engines for sparse vectors behind the methods of `SparseIndex`: add, delete, search, count, close.

| engine | exact | add, delete | filters | for |
|---|---|---|---|---|
| `SparseIndex` | yes | yes | no | the default: memory-mapped, many readers |
| `edge.EdgeIndex` (Qdrant Edge) | yes | yes | yes | collections that change often or are filtered; one process |
| `seismic.SeismicIndex` (Seismic) | no | no | no | from about a million documents; its recall is measured |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from spectra_nsa.index.hits import Hits


class SparseBackend(Protocol):
    """An engine that finds documents by sparse vectors."""

    def add(self, rows: Any, ids: Sequence[str]) -> None:
        """Adds CSR rows under unique names."""
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes documents and returns how many there were."""
        ...

    def search(self, queries: Any, k: int) -> Hits:
        """Returns the k best documents of each of the CSR rows."""
        ...

    def ids(self, hits: Hits) -> list[list[str]]:
        """Returns the ids of the hits of each query."""
        ...

    def count(self) -> int:
        """Returns the number of documents."""
        ...

    def close(self) -> None:
        """Releases files and locks."""
        ...
