"""Hybrid search: several systems ranked together, as `index.hybrid` fuses them.

Legend: Q queries, N documents, C candidates per query, k hits per query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.strings import DistinctSpellings
from spectra_nsa.evaluation.collections.hub_folder import is_collection, load_folder
from spectra_nsa.evaluation.sources import Sources, split_of
from spectra_nsa.evaluation.sparse.sparsity import SparseRows
from spectra_nsa.evaluation.sparse.system import nearest_sparse
from spectra_nsa.evaluation.systems import DenseSystem, Ranking, nearest

if TYPE_CHECKING:
    import numpy as np

    from spectra_nsa.evaluation.systems import System
    from spectra_nsa.index.hits import Hits
    from spectra_nsa.index.hybrid import Fusion
    from spectra_nsa.text.shared_columns import SharedColumns

PREFIX = "hybrid:"
Grades = Sequence[Mapping[int, float]]


class HybridSystem:
    """Dense models, sparse encoders and BM25 as one system.

    Without weights their lists are fused by reciprocal ranks, otherwise by the weighted sum of standardized scores.
    """

    def __init__(self, parts: Sequence[System], fusion: Fusion | None = None) -> None:
        """Initializes the system.

        Args:
            parts: two or more systems of different names.
            fusion: how their lists become one; ``None`` for reciprocal rank fusion.

        Raises:
            UsageError: there are fewer than two parts, or two have one name.
            SpectraError: a part has no vectors.
        """
        from spectra_nsa.index.hybrid import Fusion

        self.parts = {part.name: part for part in parts}
        self.name = PREFIX + "+".join(part.name for part in parts)
        if len(self.parts) < 2 or len(self.parts) < len(parts):
            raise UsageError(f"{self.name}: a hybrid system needs two or more different systems.")
        for part in parts:
            if not isinstance(part, DenseSystem | SparseRows):
                raise SpectraError(f"{part.name} has no vectors, so it cannot be part of a hybrid system.")
        self.fusion = fusion or Fusion()

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        """Returns the k best documents of each query by the fused score."""
        import numpy as np

        from spectra_nsa.index.hybrid import Hybrid

        k = min(k, len(documents))
        if not k or not queries:
            shape = (len(queries), k)
            return Ranking(index=np.full(shape, -1), scores=np.full(shape, -np.inf, dtype=np.float32))
        retrievers, encoded = self._retrievers(queries, documents)
        hits = Hybrid(retrievers, self.fusion).search(encoded, k)
        return Ranking(index=hits.positions, scores=hits.scores)

    def fit(self, queries: Sequence[str], documents: Sequence[str], relevant: Grades) -> None:
        """Fits the fusion on development queries, see `fit_fusion`.

        Args:
            queries: Q texts.
            documents: N texts.
            relevant: for each query, position of a relevant document → its grade.

        Raises:
            SpectraError: there are too few queries.
        """
        from spectra_nsa.index.fit_fusion import fit_fusion

        retrievers, encoded = self._retrievers(queries, documents)
        self.fusion = fit_fusion(retrievers, encoded, relevant)

    @property
    def note(self) -> str:
        """How the lists are fused, in words."""
        if self.fusion.method == "rrf":
            how = "reciprocal rank fusion"
        else:
            weights = ", ".join(f"{name} {weight:g}" for name, weight in self.fusion.weights.items())
            how = f"weighted sum of standardized scores ({weights})"
        fit = self.fusion.fit
        if not fit:
            return f"{self.name}: {how}"
        from spectra_nsa.index.fit_fusion import RULE, held_out_figures

        chosen = f"chosen by held-out nDCG@10 on {fit['queries']} queries: {held_out_figures(fit)}"
        return f"{self.name}: {how}, {chosen} ({RULE})"

    def _retrievers(
        self, queries: Sequence[str], documents: Sequence[str]
    ) -> tuple[dict[str, _Vectors | _Rows], dict[str, Any]]:
        retrievers: dict[str, _Vectors | _Rows] = {}
        encoded: dict[str, Any] = {}
        for name, part in self.parts.items():
            if isinstance(part, DenseSystem):
                encoded[name], vectors = part.dense_rows(queries, documents)
                retrievers[name] = _Vectors(vectors)
            else:
                assert isinstance(part, SparseRows)
                encoded[name], rows = part.sparse_rows(queries, documents)
                retrievers[name] = _Rows(rows, name)
        return retrievers, encoded


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Development queries with the documents to find.

    Attributes:
        queries: Q texts.
        documents: N texts.
        relevant: for each query, position of a relevant document → its grade.
    """

    queries: list[str]
    documents: list[str]
    relevant: Grades


def read_judged(source: str, columns: SharedColumns | None = None) -> Judged:
    """Reads development queries from pairs or from a retrieval set.

    Args:
        source: pairs in any form, or the folder of a retrieval set, which ``:SPLIT`` may follow.
        columns: the mapping of the columns of pairs; ``None`` guesses the roles.

    Raises:
        SpectraError: the source is missing or of another kind.
    """
    folder, split = split_of(source)
    if is_collection(folder):
        data = load_folder(folder, split)
        place = {document: at for at, document in enumerate(data.corpus)}
        return Judged(
            queries=[data.queries[name] for name in data.qrels],
            documents=list(data.corpus.values()),
            relevant=[{place[name]: float(grade) for name, grade in data.qrels[query].items()} for query in data.qrels],
        )
    rows = Sources(columns=columns).rows(source, ("pairs", "triplets"), "--fusion-dev").dataset
    anchors, positives = DistinctSpellings(rows["anchor"][:]), DistinctSpellings(rows["positive"][:])
    relevant: list[dict[int, float]] = [{} for _ in anchors.texts]
    for anchor, positive in zip(anchors.numbers, positives.numbers, strict=True):
        relevant[anchor][positive] = 1.0
    return Judged(queries=list(anchors.texts), documents=list(positives.texts), relevant=relevant)


def fit_on(systems: Sequence[HybridSystem], judged: Judged) -> list[str]:
    """Fits the fusion of each system on development queries, and returns a note for each.

    Raises:
        SpectraError: there are too few queries.
    """
    for system in systems:
        system.fit(judged.queries, judged.documents, judged.relevant)
    return [system.note for system in systems]


class _Vectors:
    """Exact search among dense vectors, as `index.hybrid` asks for it."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def search(self, queries: np.ndarray, k: int) -> Hits:
        return _hits(nearest(queries, self._vectors, k))

    def scores(self, queries: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Returns the scores (Q, C) of the documents at `positions`, query by query."""
        import numpy as np

        pairs = zip(queries, positions, strict=True)
        return np.array([self._vectors[row] @ query for query, row in pairs], dtype=np.float32)


class _Rows:
    """Exact search among sparse rows, as `index.hybrid` asks for it."""

    def __init__(self, rows: Any, name: str) -> None:
        self._rows, self._name = rows, name

    def search(self, queries: Any, k: int) -> Hits:
        return _hits(nearest_sparse(queries, self._rows, k, name=self._name))

    def scores(self, queries: Any, positions: np.ndarray) -> np.ndarray:
        """Returns the scores (Q, C) of the documents at `positions`, query by query."""
        import numpy as np

        found = np.zeros(positions.shape, dtype=np.float32)
        for at, row in enumerate(positions):
            found[at] = (self._rows[row] @ queries[at].T).toarray().ravel()
        return found


def _hits(ranking: Ranking) -> Hits:
    from spectra_nsa.index.hits import Hits

    return Hits(positions=ranking.index, scores=ranking.scores)
