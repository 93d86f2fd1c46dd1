"""Search in an index folder by text: the index and the models that it was built with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.core.files import expand_user
from spectra_nsa.core.inputs import text_list
from spectra_nsa.core.strings import is_blank
from spectra_nsa.evaluation.open import SPLADE, open_splade
from spectra_nsa.index.collection import Index, new_index
from spectra_nsa.index.dense import VectorsPart
from spectra_nsa.index.fit_fusion import fit_fusion
from spectra_nsa.index.hits import Hits
from spectra_nsa.index.hybrid import Fusion, Hybrid
from spectra_nsa.index.parts import Part
from spectra_nsa.index.sparse.bm25 import BM25Part
from spectra_nsa.index.sparse.exchange import VOCABULARY
from spectra_nsa.index.sparse.part import PostingsPart
from spectra_nsa.index.sparse.pruning import Pruning
from spectra_nsa.models.open import DENSE, ModelFolder, ModelKind, find_model, open_encoder, open_model

KINDS = ("sparse", "hybrid")
SPARSE, VECTORS, WORDS = "sparse", "dense", "bm25"  # names of the parts


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
        self._opened: dict[str, Any] = dict(opened or {})
        self._moved = [_find(name, (*DENSE, "sparse")) for name in models]
        known = {facts["sha256"] for facts in self._models().values()}
        for files in self._moved:
            if files.checksum not in known:
                raise SpectraError(f"{files.name} is not a model that {where} was built with: its SHA-256 differs.")

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
        files = _models_of_kind(kind, models)
        parts: dict[str, Part] = {}
        extra: dict[str, bytes] = {}
        opened = {name: _open(one) for name, one in files.items()}
        if SPARSE in opened:
            width = int(opened[SPARSE].get_embedding_dimension())
            parts[SPARSE] = PostingsPart(width=width, impacts=impacts, pruning=pruning)
            extra[VOCABULARY] = json.dumps(_vocabulary(opened[SPARSE], width)).encode()
        if VECTORS in opened:
            parts[VECTORS] = VectorsPart(width=int(opened[VECTORS].get_embedding_dimension()))
        if kind == "hybrid":
            parts[WORDS] = BM25Part()
        facts = {"models": {name: _model_facts(one) for name, one in files.items()}}
        with new_index(folder) as draft:
            cls(Index.create(draft, kind, parts, facts=facts, files=extra), opened=opened).add(documents)
        return cls(Index.load(folder), opened=opened)

    @classmethod
    def load(cls, folder: str | Path, *, models: Sequence[str] = ()) -> Searcher:
        """Opens an index. Raises `SpectraError` if there is none, or it is damaged."""
        return cls(Index.load(folder), models=models)

    def add(self, documents: Documents, *, replace: bool = False) -> None:
        """Encodes and adds documents in one commit, see `Index.add`."""
        rows = {name: self._encode(name, documents.texts, "document") for name in self.index.parts}
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
        if len(self.index.parts) == 1:
            (name,) = self.index.parts
            return self.index.part(name).search(self._encode(name, texts, "query"), k)
        asked = [name for name in self.index.parts if self.fusion.method == "rrf" or self.fusion.weights.get(name)]
        rows = {name: self._encode(name, texts, "query") for name in asked}
        return Hybrid({name: self.index.part(name) for name in self.index.parts}, self.fusion).search(rows, k)

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
        rows = {name: self._encode(name, queries, "query") for name in self.index.parts}
        self.fusion = fit_fusion({name: self.index.part(name) for name in self.index.parts}, rows, grades)
        self.index.update_facts(fusion=self.fusion.document())
        return self.fusion

    def _models(self) -> dict[str, Mapping[str, Any]]:
        models = self.index.commit.facts.get("models") or {}
        if not isinstance(models, Mapping) or not all(
            isinstance(facts, Mapping) and isinstance(facts.get("name"), str) and isinstance(facts.get("sha256"), str)
            for facts in models.values()
        ):
            raise SpectraError(f"{self.index.folder}: the manifest does not describe its models.")
        return dict(models)

    def _model(self, part: str) -> Any:
        if part not in self._opened:
            facts = self._models().get(part)
            if facts is None:
                raise SpectraError(
                    f"{self.index.folder} does not say which model its part {part!r} was built with: search it with "
                    "vectors, through spectra_nsa.index."
                )
            moved = next((files for files in self._moved if files.checksum == facts["sha256"]), None)
            files = moved or _find(facts["name"], (*DENSE, "sparse"))
            if files.checksum != facts["sha256"]:
                raise SpectraError(
                    f"{files.name} has changed since {self.index.folder} was built with it. Build the index again, or "
                    "name the old model with --model."
                )
            self._opened[part] = _open(files)
        return self._opened[part]

    def _encode(self, part: str, texts: Sequence[str], role: str) -> Any:
        """Returns texts in the form that a part is searched by."""
        if part == WORDS:
            from spectra_nsa.evaluation.bm25 import stemmed_words

            return list(stemmed_words(texts))
        model, progress = self._model(part), sys.stderr.isatty() and len(texts) > 500
        if part == SPARSE:
            from spectra_nsa.evaluation.sparse.encoding import encode_rows

            return encode_rows(model, texts, role, name=self._models()[part]["name"], progress=progress)
        from spectra_nsa.metrics.finite import check_finite
        from spectra_nsa.models.encode import encode_role

        encoded = encode_role(model, texts, role, normalize_embeddings=True, show_progress_bar=progress)
        vectors = np.asarray(encoded, dtype=np.float32)
        check_finite(vectors, self._models()[part]["name"], f"vectors of {role}s")
        return vectors.reshape(len(texts), -1) if len(texts) else np.zeros((0, model.get_embedding_dimension()))


def _models_of_kind(kind: str, models: Sequence[str]) -> dict[str, ModelFolder]:
    """Returns the model of each part.

    Raises:
        UsageError: the models do not fit the kind of index.
    """
    if kind not in KINDS:
        raise unknown_name("kind of index", kind, KINDS)
    if not models:
        raise UsageError("no model: name one with --model.")
    accept: Sequence[ModelKind] = (*DENSE, "sparse") if kind == "hybrid" else ("sparse",)
    found: dict[str, ModelFolder] = {}
    for name in models:
        files = _find(name, accept)
        part = SPARSE if files.kind == "sparse" else VECTORS
        if part in found:
            raise UsageError(f"{found[part].name} and {name} are both {part} models: an index has one of each.")
        found[part] = files
    return found


def _find(name: str, accept: Sequence[ModelKind]) -> ModelFolder:
    """Returns the files of a model; ``splade:NAME`` is a masked LM with SPLADE pooling, as in `open_system`."""
    if not name.startswith(SPLADE):
        return find_model(name, accept=accept)
    from spectra_nsa.models.sparse.names import sparse_start

    return ModelFolder(name=name, folder=sparse_start(name.removeprefix(SPLADE))[0], kind="sparse")


def sparse_model_facts(name: str) -> dict[str, str]:
    """Returns what an index remembers of a sparse encoder: name and SHA-256. Raises `SpectraError` if it is none."""
    return _model_facts(_find(name, ("sparse",)))


def _model_facts(files: ModelFolder) -> dict[str, str]:
    path = expand_user(files.name)
    return {"name": str(path.resolve()) if path.is_dir() else files.name, "sha256": files.checksum}


def _open(files: ModelFolder) -> Any:
    if files.name.startswith(SPLADE):
        return open_splade(files.name.removeprefix(SPLADE))
    if files.kind == "spectra":
        return open_encoder(files)
    return open_model(files, accept=(*DENSE, "sparse"), convert=False)


def _vocabulary(model: Any, width: int) -> list[str]:
    """Returns the terms of a sparse encoder; a number for each that its tokenizer does not have."""
    terms = [f"#{number}" for number in range(width)]
    for term, number in model.tokenizer.get_vocab().items():
        if 0 <= number < width:
            terms[number] = term
    return terms
