"""Fusion: one list of hits from several retrievers, and hybrid search over the parts of an index.

Reciprocal rank fusion (Cormack et al. 2009) needs no fitting:

    score(d) = Σ_r 1 / (60 + rank of d in list r)

Weighted fusion adds normalized scores. The candidates of a query are all documents that one of the lists has. Each
retriever scores all of them, so no document is punished for missing a list that was cut. The scores of a retriever are
standardized over the candidates, so that scales do not matter:

    score(d) = Σ_r w_r · (s_r(d) − mean of s_r) / (standard deviation of s_r)

Legend: Q queries, C candidates, K hits, R retrievers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.errors import SpectraError, unknown_name
from spectra_nsa.index.hits import Hits, Retriever, ScoringRetriever, best_of, check_k

FusionMethod = Literal["rrf", "weighted"]
CONSTANT = 60  # of reciprocal rank fusion
DEPTH = 100  # hits of each retriever that are fused


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """How lists of hits become one.

    Attributes:
        method: ``"rrf"`` or ``"weighted"``.
        weights: of each retriever by name, for ``"weighted"``. A retriever of weight zero is not asked.
        depth: hits of each retriever that are fused, at least as many as are wanted.
        fit: how the weights were found, for the reader of the manifest.
    """

    method: FusionMethod = "rrf"
    weights: Mapping[str, float] = field(default_factory=dict)
    depth: int = DEPTH
    fit: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {"method": self.method, "weights": dict(self.weights), "depth": self.depth, "fit": dict(self.fit)}

    @classmethod
    def parse(cls, document: Any, names: Sequence[str], where: str) -> Fusion:
        """Returns the fusion that JSON values describe.

        Args:
            document: from `document`.
            names: the retrievers.
            where: the file, for the message.

        Raises:
            SpectraError: it describes none.
        """
        try:
            fusion = cls(**document)
            weights = {name: float(weight) for name, weight in fusion.weights.items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise SpectraError(f"{where} describes no fusion: {error}.") from error
        if fusion.method not in get_args(FusionMethod):
            raise unknown_name("fusion", fusion.method, get_args(FusionMethod))
        if type(fusion.depth) is not int or fusion.depth < 1 or not isinstance(fusion.fit, Mapping):
            raise SpectraError(f"{where} describes no fusion: its depth is {fusion.depth!r}.")
        if fusion.method == "weighted":
            for name in weights:
                if name not in names:
                    raise unknown_name("retriever", name, names)
            if not np.isfinite(list(weights.values())).all() or not any(weight > 0 for weight in weights.values()):
                raise SpectraError(f"{where} describes no fusion: no weight is positive.")
        return cls(method=fusion.method, weights=weights, depth=fusion.depth, fit=fusion.fit)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """What fusion needs of a batch of queries.

    Attributes:
        positions: (Q, C) the documents that a list has, ascending; −1 fills the rows.
        scores: (R, Q, C) the score of each by each retriever; anything beside −1.
        ranks: (R, Q, C) its rank in each list, from 1; infinity if the list does not have it.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]
    ranks: NDArray[np.float32]


class Hybrid:
    """Several retrievers of the same documents, searched as one.

    Args:
        retrievers: by name, such as the parts of an index.
        fusion: how their lists become one.
    """

    def __init__(self, retrievers: Mapping[str, Retriever], fusion: Fusion | None = None) -> None:
        self.retrievers = retrievers
        self.fusion = fusion or Fusion()

    def search(self, queries: Mapping[str, Any], k: int) -> Hits:
        """Returns the k best documents of each query.

        Args:
            queries: for each retriever, the same queries in its form.
            k: hits per query.

        Raises:
            SpectraError: a retriever's queries are missing or do not fit.
        """
        check_k(k)
        names = self._asked()
        candidates, empty = gather({name: self.retrievers[name] for name in names}, queries, max(k, self.fusion.depth))
        hits = fuse(candidates, self.fusion, names, k)
        return Hits(positions=hits.positions, scores=hits.scores, empty=empty)

    def _asked(self) -> list[str]:
        weights = self.fusion.weights
        return [name for name in self.retrievers if self.fusion.method == "rrf" or weights.get(name, 0.0) > 0]


def gather(retrievers: Mapping[str, Retriever], queries: Mapping[str, Any], depth: int) -> tuple[Candidates, int]:
    """Searches with each retriever and lets each score all documents that were found.

    A retriever that cannot score given documents gives those that its list lacks a bound: zero if the list ended by
    itself, which leaves only documents without any match, otherwise the lowest score of the list.

    Returns:
        the candidates, and the number of queries for which no retriever has an active dimension.

    Raises:
        SpectraError: a retriever's queries are missing or do not fit.
    """
    lists: dict[str, Hits] = {}
    for name, retriever in retrievers.items():
        if name not in queries:
            raise SpectraError(f"the queries of the retriever {name!r} are missing.")
        lists[name] = retriever.search(queries[name], depth)
    sizes = {len(hits.positions) for hits in lists.values()}
    if len(sizes) != 1:
        raise SpectraError(f"the retrievers were asked different numbers of queries: {sorted(sizes)}.")
    positions = _union([hits.positions for hits in lists.values()])
    shape = (len(lists), *positions.shape)
    scores, ranks = np.zeros(shape, dtype=np.float32), np.full(shape, np.inf, dtype=np.float32)
    for number, (name, hits) in enumerate(lists.items()):
        retriever = retrievers[name]
        for row, found in enumerate(hits.positions):
            found = found[found >= 0]
            at = np.searchsorted(positions[row, : _width(positions[row])], found)
            ranks[number, row, at] = np.arange(1, len(found) + 1)
            if not isinstance(retriever, ScoringRetriever):
                listed = hits.scores[row, : len(found)]
                scores[number, row] = listed[-1] if len(found) == hits.positions.shape[1] else 0.0
                scores[number, row, at] = listed
        if isinstance(retriever, ScoringRetriever):
            scores[number] = retriever.scores(queries[name], positions)
    return Candidates(positions=positions, scores=scores, ranks=ranks), min(hits.empty for hits in lists.values())


def _union(lists: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    together = np.sort(np.concatenate(lists, axis=1), axis=1)
    repeated = np.zeros(together.shape, dtype=bool)
    repeated[:, 1:] = together[:, 1:] == together[:, :-1]
    last = np.iinfo(np.int64).max
    together = np.sort(np.where(repeated | (together < 0), last, together), axis=1)
    width = max(int((together < last).sum(1).max(initial=0)), 1)
    together = together[:, :width]
    return np.where(together == last, -1, together)


def _width(row: NDArray[np.int64]) -> int:
    """Returns the number of candidates in a row, which −1 fills at its end."""
    return int((row >= 0).sum())


def fuse(candidates: Candidates, fusion: Fusion, names: Sequence[str], k: int) -> Hits:
    """Returns the k best candidates of each query.

    Args:
        candidates: of R retrievers.
        fusion: how their lists become one.
        names: of the retrievers, in the order of the candidates.
        k: hits per query.
    """
    if fusion.method == "rrf":
        fused = (1.0 / (CONSTANT + candidates.ranks)).sum(0)
    else:
        weights = np.array([fusion.weights.get(name, 0.0) for name in names], dtype=np.float32)
        fused = np.tensordot(weights, standardized(candidates), axes=1)
    scores = np.where(candidates.positions >= 0, fused, -np.inf).astype(np.float32)
    return best_of(candidates.positions, scores, min(k, scores.shape[1]))


def standardized(candidates: Candidates) -> NDArray[np.float32]:
    """Returns the scores (R, Q, C) with mean 0 and standard deviation 1 over the candidates of each query.

    Equal scores become 0.
    """
    real = (candidates.positions >= 0)[None]
    count = np.maximum(real.sum(-1, keepdims=True), 1)
    mean = np.where(real, candidates.scores, 0).sum(-1, keepdims=True, dtype=np.float64) / count
    centered = np.where(real, candidates.scores - mean, 0)
    deviation = np.sqrt((centered**2).sum(-1, keepdims=True) / count)
    safe = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, np.inf)
    return (centered / safe).astype(np.float32)
