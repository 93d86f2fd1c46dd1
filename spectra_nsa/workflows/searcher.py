"""Search in an index folder by text: the index and the models that it was built with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.inputs import text_list
from spectra_nsa.core.strings import is_blank
from spectra_nsa.index.collection import Index, new_index
from spectra_nsa.index.dense import VectorsPart
from spectra_nsa.index.fit_fusion import fit_fusion
from spectra_nsa.index.hits import Hits
from spectra_nsa.index.hybrid import Fusion, Hybrid
from spectra_nsa.index.parts import Part
from spectra_nsa.index.sparse.bm25 import BM25Part
from spectra_nsa.index.sparse.part import PostingsPart
from spectra_nsa.index.sparse.pruning import Pruning
from spectra_nsa.workflows.index_models import (
    SPARSE,
    VECTORS,
    WORDS,
    IndexModels,
    model_facts,
    models_of_kind,
    open_any,
    sparse_files,
)


@dataclass(frozen=True, kw_only=True)
class IndexHit:
    """A document that was found.

    Attributes:
        id: its name in the index.
        score: larger is better.
        text: its text.
        metadata: what else the index holds of it.
    """

    id: str
    score: float
    text: str | None
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents to add: ids, texts, and a JSON object for each."""

    ids: list[str]
    texts: list[str]
    metadata: list[Mapping[str, Any] | None] | None = None


class Searcher:
    """An index with its models; each model is opened when it is first needed.

    Attributes:
        index: the documents.
        fusion: how the hits of several parts become one list; of an index with one part, not used.
        models: what encodes texts for its parts.
    """

    def __init__(self, index: Index, *, models: Sequence[str] = (), opened: Mapping[str, Any] | None = None) -> None:
        """Initializes the searcher.

        Args:
            index: an opened index.
            models: where its models are now, if not where they were.
            opened: models that are open already, by part.

        Raises:
            SpectraError: a model is not one that the index was built with.
        """
        self.index = index
        stored = index.commit.facts.get("fusion")
        where = str(index.folder)
        self.fusion = Fusion() if stored is None else Fusion.parse(stored, list(index.parts), where)
        self.models = IndexModels(index, models=models, opened=opened)

    @classmethod
    def build(
        cls,
        folder: str | Path,
        documents: Documents,
        models: Sequence[str],
        *,
        kind: str = "sparse",
        impacts: str = "float32",
        pruning: Pruning | None = None,
    ) -> Searcher:
        """Builds an index, in place of an older one.

        Args:
            folder: where to.
            documents: what it will hold.
            models: for ``"sparse"`` one sparse encoder, or ``splade:NAME`` for a masked LM with SPLADE pooling; for
                ``"hybrid"`` such an encoder, a dense model, or both, beside BM25.
            kind: ``"sparse"`` or ``"hybrid"``.
            impacts: how sparse weights are stored, see `index.sparse.impacts`.
            pruning: which small sparse weights are left out; ``None`` keeps all.

        Raises:
            SpectraError: a model cannot be opened, or a document is refused.
            UsageError: the models do not fit the kind, or the folder holds something else than an index.
        """
        files = models_of_kind(kind, models)
        parts: dict[str, Part] = {}
        extra: dict[str, bytes] = {}
        opened = {name: open_any(one) for name, one in files.items()}
        if SPARSE in opened:
            width = int(opened[SPARSE].get_embedding_dimension())
            parts[SPARSE] = PostingsPart(width=width, impacts=impacts, pruning=pruning)
            extra = sparse_files(opened[SPARSE], width)
        if VECTORS in opened:
            parts[VECTORS] = VectorsPart(width=int(opened[VECTORS].get_embedding_dimension()))
        if kind == "hybrid":
            parts[WORDS] = BM25Part()
        facts = {"models": {name: model_facts(one, folder) for name, one in files.items()}}
        with new_index(folder) as draft:
            cls(Index.create(draft, kind, parts, facts=facts, files=extra), opened=opened).add(documents)
        return cls(Index.load(folder), opened=opened)

    @classmethod
    def load(cls, folder: str | Path, *, models: Sequence[str] = ()) -> Searcher:
        """Opens an index. Raises `SpectraError` if there is none, or it is damaged."""
        return cls(Index.load(folder), models=models)

    def add(self, documents: Documents, *, replace: bool = False) -> None:
        """Encodes and adds documents in one commit, see `Index.add`."""
        rows = {name: self.models.encode(name, documents.texts, "document") for name in self.index.parts}
        self.index.add(documents.ids, rows, texts=documents.texts, metadata=documents.metadata, replace=replace)

    def search(self, queries: Iterable[str], k: int = 10) -> Hits:
        """Returns the k best documents of each query.

        Raises:
            SpectraError: a query is empty, or a model is missing or has changed.
            UsageError: k is not positive.
        """
        texts = text_list(queries, "queries")
        if any(map(is_blank, texts)):
            raise SpectraError("a query is empty: it has no visible character.")
        rows = {name: self.models.encode(name, texts, "query") for name in self._asked()}
        if len(self.index.parts) == 1:
            (name,) = rows
            return self.index.part(name).search(rows[name], k)
        return Hybrid({name: self.index.part(name) for name in self.index.parts}, self.fusion).search(rows, k)

    def prepare(self) -> None:
        """Opens what queries need, which `search` does otherwise when it is first called.

        Raises:
            SpectraError: a model is missing or has changed.
        """
        self.models.prepare(self._asked())

    def _asked(self) -> list[str]:
        """Returns the parts that a query is given to: those of weight 0 are not."""
        parts = list(self.index.parts)
        if len(parts) == 1 or self.fusion.method == "rrf":
            return parts
        return [name for name in parts if self.fusion.weights.get(name)]

    def hits(self, query: str, k: int = 10) -> list[IndexHit]:
        """Returns the k best documents of a query with their texts."""
        found = self.search([query], k)
        records = self.index.records(found.positions[0])
        return [
            IndexHit(id=record.id, score=float(score), text=record.text, metadata=record.metadata)
            for record, score in zip(records, found.scores[0], strict=False)
        ]

    def fit(self, queries: Sequence[str], relevant: Sequence[Mapping[str, float]]) -> Fusion:
        """Fits the fusion on development queries and stores it in the index, see `index.fit_fusion`.

        Args:
            queries: Q texts.
            relevant: for each, id → grade of the relevant documents; ids that the index does not have are left out.

        Raises:
            SpectraError: too few queries have a relevant document in the index.
            UsageError: the index has one part only.
        """
        if len(self.index.parts) < 2:
            raise UsageError(f"{self.index.folder} has one way to search: there is nothing to fuse.")
        ids = list({key for grades in relevant for key in grades})
        at = {key: position for key, position in zip(ids, self.index.positions(ids), strict=True) if position >= 0}
        grades = [{at[key]: float(grade) for key, grade in one.items() if key in at} for one in relevant]
        rows = {name: self.models.encode(name, queries, "query") for name in self.index.parts}
        self.fusion = fit_fusion({name: self.index.part(name) for name in self.index.parts}, rows, grades)
        self.index.update_facts(fusion=self.fusion.document())
        return self.fusion
