"""The systems that are measured: each ranks documents for queries, most of them by embeddings.

Legend: Q queries, N documents, D width, k hits per query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.metrics.finite import check_finite

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 32_000_000  # similarities in memory at a time: 128 MB


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The best documents of each query, best first.

    Attributes:
        index: (Q, k) int64 positions in the list of documents; −1 if a query has fewer hits.
        scores: (Q, k) float32, larger is better; −∞ beside −1.
        notes: remarks for the reader, such as how many queries had no vector.
    """

    index: np.ndarray
    scores: np.ndarray
    notes: tuple[str, ...] = ()


class System(Protocol):
    """Anything that ranks documents for queries."""

    name: str

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        """Returns the k best documents of each query, or all if there are fewer."""
        ...


class LastRows:
    """The vectors of the last texts of each role, so that several tasks on one collection encode it once."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[list[str], Any]] = {}

    def rows(self, role: str, texts: Sequence[str], encode: Callable[[str, Sequence[str]], Any]) -> Any:
        """Returns the vectors of texts, encoded now unless they are the last ones of this role."""
        if role not in self._last or self._last[role][0] != list(texts):
            self._last[role] = list(texts), encode(role, texts)
        return self._last[role][1]


class DenseSystem:
    """Exact cosine search with a SentenceTransformer, or anything with its `encode_query` and `encode_document`."""

    def __init__(
        self, name: str, model: Any, *, dim: int | None = None, batch_size: int | None = None, precision: str = "fp32"
    ) -> None:
        """Initializes the system.

        Args:
            name: its name in the results.
            model: a `SentenceTransformer`, ours or any other.
            dim: use only this many leading dimensions, normalized again; ``None`` uses all.
            batch_size: texts per forward pass; ``None`` for the model's default.
            precision: the number format: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``.

        Raises:
            SpectraError: the model has fewer dimensions than `dim`.
        """
        width = model.get_embedding_dimension() if dim is not None else None
        if dim is not None and not 1 <= dim <= (width or dim):
            raise SpectraError(f"{name} has {width} dimensions: --dim must be between 1 and {width}, not {dim}.")
        self.name = name
        self.model = model
        self.dim = dim
        self.batch_size = batch_size
        self.precision = precision
        self._last = LastRows()

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Returns (Q, D) float32 unit rows, with the model's query prompt if it has one.

        Raises:
            SpectraError: vectors are not finite.
        """
        return self._encode("query", texts)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Returns (N, D) float32 unit rows, with the model's document prompt if it has one. Raises as above."""
        return self._encode("document", texts)

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        """Returns the k nearest documents of each query by cosine."""
        return nearest(*self.dense_rows(queries, documents), k)

    def dense_rows(self, queries: Sequence[str], documents: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns queries (Q, D) and documents (N, D). Those of the last texts are kept for further tasks on them."""
        return self._last.rows("query", queries, self._encode), self._last.rows("document", documents, self._encode)

    def _encode(self, role: str, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        from spectra_nsa.models.encoding.roles import encode_role

        if not texts:
            return np.zeros((0, self.dim or self.model.get_embedding_dimension() or 1), dtype=np.float32)
        vectors = encode_role(
            self.model,
            texts,
            role,
            precision=self.precision,
            normalize_embeddings=True,
            truncate_dim=self.dim,
            show_progress_bar=True,
            **({} if self.batch_size is None else {"batch_size": self.batch_size}),
        )
        array = np.asarray(vectors, dtype=np.float32)
        check_finite(array, self.name)
        return array


def nearest(queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
    """Searches exactly by inner product, in blocks of queries: (Q, D), (N, D) → the min(k, N) best of each query.

    If more documents share the k-th score than fit, they are drawn at random, so that the order of the documents favors
    none of them. Equal scores within the k are ordered by position. The block bounds the memory for any Q and N.
    """
    return exact_ranking(lambda rows: queries[rows] @ documents.T, len(queries), len(documents), k)


def exact_ranking(
    scores_of: Callable[[slice], np.ndarray], queries: int, documents: int, k: int, *, memory: int = 1
) -> Ranking:
    """Ranks all documents for blocks of queries, with ties as in `nearest`.

    Args:
        scores_of: a block of queries → the scores of all documents, (B, N).
        queries: Q.
        documents: N.
        k: hits per query.
        memory: how many times its own size a block of scores needs.
    """
    import numpy as np

    k = min(k, documents)
    generator = np.random.default_rng(0)
    index = np.zeros((queries, k), dtype=np.int64)
    scores = np.zeros((queries, k), dtype=np.float32)
    step = max(1, _BLOCK // memory // max(1, documents))
    for start in range(0, queries if k else 0, step):
        rows = slice(start, start + step)
        similarity = scores_of(rows)
        top = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        _redraw_cut_ties(similarity, top, generator)
        top.sort(axis=1)
        values = np.take_along_axis(similarity, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        index[rows] = np.take_along_axis(top, order, axis=1)
        scores[rows] = np.take_along_axis(values, order, axis=1)
    return Ranking(index=index, scores=scores)


def _redraw_cut_ties(similarity: np.ndarray, top: np.ndarray, generator: np.random.Generator) -> None:
    """Replaces the documents in `top` that share the k-th score with documents beyond it by a random draw of them all.

    Args:
        similarity: (Q, N).
        top: (Q, k) positions of the largest entries of each row; changed in place.
        generator: the source of the draws.
    """
    import numpy as np

    chosen = np.take_along_axis(similarity, top, axis=1)
    last = chosen.min(axis=1, keepdims=True)
    cut = (similarity == last).sum(axis=1) > (chosen == last).sum(axis=1)
    for row in np.flatnonzero(cut):
        tied = chosen[row] == last[row]
        top[row, tied] = generator.choice(np.flatnonzero(similarity[row] == last[row]), tied.sum(), replace=False)
