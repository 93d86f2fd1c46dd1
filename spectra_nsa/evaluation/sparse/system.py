"""Sparse encoders as systems: exact search by the inner product of sparse vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.counts import counted
from spectra_nsa.evaluation.sparse.encoding import empty_texts, encode_rows, has_terms
from spectra_nsa.evaluation.systems import LastRows, Ranking, exact_ranking

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_SHARE = 4  # a block of scores takes this many times its memory while it is computed


class SparseSystem:
    """Exact search with a sparse encoder: ours, or any `SparseEncoder` with its `encode_query` and `encode_document`.

    A document that shares no term with the query is no hit.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        *,
        query_active: int | None = None,
        document_active: int | None = None,
        batch_size: int = 32,
        precision: str = "fp32",
    ) -> None:
        """Initializes the system.

        Args:
            name: its name in the results.
            model: a `SparseEncoder`, ours or any other.
            query_active: keep this many largest weights of each query; ``None`` for the model's own limit, if any.
            document_active: the same for documents.
            batch_size: texts per forward pass.
            precision: the number format: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``.
        """
        self.name = name
        self.model = model
        self.batch_size = batch_size
        self.precision = precision
        self._active = {"query": query_active, "document": document_active}
        self._last = LastRows()

    def encode_queries(self, texts: Sequence[str]) -> csr_matrix:
        """Returns (Q, V) float32 rows, with the model's prompt and route for queries.

        Raises:
            SpectraError: a weight is not finite.
        """
        return self._encode("query", texts)

    def encode_documents(self, texts: Sequence[str]) -> csr_matrix:
        """Returns (N, V) float32 rows, with the model's prompt and route for documents. Raises as above."""
        return self._encode("document", texts)

    def sparse_rows(self, queries: Sequence[str], documents: Sequence[str]) -> tuple[csr_matrix, csr_matrix]:
        """Returns queries and documents as rows whose inner products are the scores; see `DenseSystem.dense_rows`."""
        return self._last.rows("query", queries, self._encode), self._last.rows("document", documents, self._encode)

    def term_names(self, terms: Sequence[int]) -> list[str] | None:
        """Returns the tokens that some dimensions stand for; ``None`` if the dimensions are no terms."""
        if not has_terms(self.model):
            return None
        names = self.model.tokenizer.convert_ids_to_tokens(list(terms))
        return [f"#{term}" if name is None else str(name) for term, name in zip(terms, names, strict=True)]

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        """Returns the k best documents of each query by inner product."""
        return nearest_sparse(*self.sparse_rows(queries, documents), k, name=self.name)

    def _encode(self, role: str, texts: Sequence[str]) -> csr_matrix:
        return encode_rows(
            self.model,
            texts,
            role,
            name=self.name,
            batch_size=self.batch_size,
            max_active_dims=self._active[role],
            precision=self.precision,
            progress=True,
        )


def nearest_sparse(queries: csr_matrix, documents: csr_matrix, k: int, *, name: str) -> Ranking:
    """Searches exactly by inner product: (Q, V), (N, V) → the min(k, N) best of each query.

    A score of zero or less is no hit. Equal scores are treated as in `nearest`. Notes count the texts without any
    term.

    Args:
        queries: CSR rows.
        documents: CSR rows.
        k: hits per query.
        name: the system's name, for the notes.
    """
    import numpy as np

    postings = documents.T.tocsr()  # the product of CSR rows walks the posting list of each term of a query
    ranking = exact_ranking(
        lambda rows: np.asarray((queries[rows] @ postings).toarray(), dtype=np.float32),
        queries.shape[0],
        documents.shape[0],
        k,
        memory=_SHARE,
    )
    hit = ranking.scores > 0
    return Ranking(
        index=np.where(hit, ranking.index, -1),
        scores=np.where(hit, ranking.scores, np.float32(-np.inf)),
        notes=(*_empty_notes(name, queries, "query"), *_empty_notes(name, documents, "document")),
    )


def _empty_notes(name: str, rows: csr_matrix, what: str) -> list[str]:
    empty, replaced = empty_texts(rows)
    effect = "without hits" if what == "query" else "never found"
    notes = []
    if empty:
        notes.append(f"{name}: {counted(empty, what)} of {rows.shape[0]:,} without any term: {effect}")
    if replaced:
        of = f"{counted(replaced, what)} of {rows.shape[0]:,}"
        notes.append(f"{name}: {of} got no term from the model: the strongest token stands for the text")
    return notes
