"""The models of an index: found where they are now, and opened when they are first needed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectra_nsa.core.errors import SpectraError, UsageError, unknown_name
from spectra_nsa.core.files import expand_user
from spectra_nsa.evaluation.open import SPLADE, open_splade
from spectra_nsa.index.collection import Index
from spectra_nsa.index.sparse.exchange import VOCABULARY
from spectra_nsa.metrics.finite import check_finite
from spectra_nsa.models.open import DENSE, ModelFolder, ModelKind, find_model, open_encoder, open_model
from spectra_nsa.models.prompts import check_role
from spectra_nsa.models.sparse.names import SHORT_NAMES, sparse_start
from spectra_nsa.models.sparse.query_side import SETTINGS, QueryWeights
from spectra_nsa.runtime import Runtime
from spectra_nsa.workflows.cut_texts import warn_cut
from spectra_nsa.workflows.export.beside import export_beside

KINDS = ("sparse", "hybrid")
PROGRESS_FROM = 500  # texts: encoding more shows progress
SPARSE, VECTORS, WORDS = "sparse", "dense", "bm25"  # names of the parts


class IndexModels:
    """The models that an index was built with.

    Attributes:
        facts: for each part with a model, what the index remembers of it: name, place and SHA-256.
    """

    def __init__(self, index: Index, *, models: Sequence[str] = (), opened: Mapping[str, Any] | None = None) -> None:
        """Initializes the models; none is opened yet.

        Args:
            index: the index.
            models: where the models are now, if not where they were.
            opened: models that are open already, by part.

        Raises:
            SpectraError: a model is not one that the index was built with.
        """
        self._folder = index.folder
        self._own_queries = SETTINGS in index.commit.files
        self.facts = _facts_of(index)
        self._opened: dict[str, Any] = dict(opened or {})
        self._queries: QueryWeights | None = None
        self._exports: dict[str, Runtime | None] = {}
        self._moved = [find_any(name, complete=False) for name in models]
        known = {facts["sha256"] for facts in self.facts.values()}
        for files in self._moved:
            if files.checksum not in known:
                find_any(files.name)  # is it damaged?
                raise SpectraError(
                    f"{files.name} is not a model that {self._folder} was built with: its SHA-256 differs."
                )

    def prepare(self, parts: Sequence[str]) -> None:
        """Opens what queries of some parts need, so that the first query takes no longer than the others.

        Raises:
            SpectraError: a model is missing or has changed.
        """
        for part in parts:
            if part != WORDS and self._query_weights(part) is None and self._query_export(part) is None:
                self.model(part)

    def encode(self, part: str, texts: Sequence[str], role: str) -> Any:
        """Returns texts as a part is searched by: documents encoded in the fastest number format, queries in fp32.

        Raises:
            UsageError: there is no such role.
            SpectraError: a model is missing or has changed, or its vectors are not finite.
        """
        check_role(role)
        if part == WORDS:
            from spectra_nsa.evaluation.bm25 import stemmed_words

            return list(stemmed_words(texts))
        if role == "query" and (side := self._query_weights(part)) is not None:
            warn_cut(side, texts, role, self.facts[part]["name"])
            return side.encode(texts)
        if role == "query" and (exported := self._query_export(part)) is not None:
            warn_cut(exported, texts, role, self.facts[part]["name"])
            vectors = exported.encode_query(list(texts), normalize_embeddings=True)
            check_finite(vectors, self.facts[part]["name"], "vectors of queries")
            return vectors
        model, progress = self.model(part), len(texts) > PROGRESS_FROM
        precision = "auto" if role == "document" else "fp32"
        warn_cut(model, texts, role, self.facts[part]["name"])
        if part == SPARSE:
            from spectra_nsa.evaluation.sparse.encoding import encode_rows

            name = self.facts[part]["name"]
            return encode_rows(model, texts, role, name=name, precision=precision, progress=progress)
        from spectra_nsa.models.encoding.roles import encode_role

        options: dict[str, Any] = {"normalize_embeddings": True, "show_progress_bar": progress}
        encoded = encode_role(model, texts, role, precision=precision, **options)
        vectors = np.asarray(encoded, dtype=np.float32)
        check_finite(vectors, self.facts[part]["name"], f"vectors of {role}s")
        return vectors.reshape(len(texts), -1) if len(texts) else np.zeros((0, model.get_embedding_dimension()))

    def model(self, part: str) -> Any:
        """Returns the opened model of a part.

        Raises:
            SpectraError: it is missing or has changed, or the index does not say which it is.
        """
        if part not in self._opened:
            facts = self.facts.get(part)
            if facts is None:
                raise SpectraError(
                    f"{self._folder} does not say which model its part {part!r} was built with: search it with "
                    "vectors, through spectra_nsa.index."
                )
            self._opened[part] = open_any(self._found(facts))
        return self._opened[part]

    def _query_weights(self, part: str) -> QueryWeights | None:
        """Returns the static query side that the index holds, which needs neither its model nor torch."""
        if part != SPARSE or not self._own_queries or part in self._opened:
            return None
        if self._queries is None:
            self._queries = QueryWeights.load(self._folder)
        return self._queries

    def _query_export(self, part: str) -> Runtime | None:
        """Returns the export beside the model of a part, which encodes its queries without torch."""
        if part != VECTORS or part in self._opened or part not in self.facts:
            return None
        if part not in self._exports:
            self._exports[part] = export_beside(self._found(self.facts[part], complete=False).folder, ["embedding"])
        return self._exports[part]

    def _found(self, facts: Mapping[str, Any], *, complete: bool = True) -> ModelFolder:
        """Returns the model that was named, else the one at its old place, else the one that moved with the index."""
        for files in self._moved:
            if files.checksum == facts["sha256"]:
                return find_any(files.name, complete=complete)
        problem: SpectraError | None = None
        for name in filter(None, (facts["name"], self._beside(facts))):
            try:
                files = find_any(name, complete=complete)
            except SpectraError as error:
                problem = problem or error
                continue
            if files.checksum == facts["sha256"]:
                return files
            try:
                find_any(name)  # is it damaged?
                problem = SpectraError(f"{name} has changed since {self._folder} was built with it.")
            except SpectraError as error:
                problem = error
        raise SpectraError(
            f"{problem} If the model of this index is elsewhere now, name its folder with --model; otherwise build the "
            "index again."
        ) from problem

    def _beside(self, facts: Mapping[str, Any]) -> str | None:
        """Returns where a model would be that was moved together with the index."""
        if not isinstance(relative := facts.get("relative"), str):
            return None
        name = str((self._folder.resolve() / relative).resolve())
        return SPLADE + name if facts["name"].startswith(SPLADE) else name


def models_of_kind(kind: str, models: Sequence[str]) -> dict[str, ModelFolder]:
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
        files = find_any(name, accept)
        part = SPARSE if files.kind == "sparse" else VECTORS
        if part in found:
            raise UsageError(f"{found[part].name} and {name} are both {part} models: an index has one of each.")
        found[part] = files
    return found


def find_any(name: str, accept: Sequence[ModelKind] = (*DENSE, "sparse"), *, complete: bool = True) -> ModelFolder:
    """Returns the files of a model; ``splade:NAME`` is a masked LM with SPLADE pooling, as in `open_system`.

    The arguments are those of `find_model`.

    Raises:
        SpectraError: there is no such model, or it is of another kind.
    """
    if not name.startswith(SPLADE):
        return find_model(name, accept=accept, complete=complete)
    return ModelFolder(name=name, folder=sparse_start(name.removeprefix(SPLADE))[0], kind="sparse")


def open_any(files: ModelFolder) -> Any:
    """Opens a model of an index."""
    if files.name.startswith(SPLADE):
        return open_splade(files.name.removeprefix(SPLADE))
    if files.kind == "spectra":
        return open_encoder(files)
    return open_model(files, accept=(*DENSE, "sparse"), convert=False)


def model_facts(files: ModelFolder, folder: str | Path) -> dict[str, str]:
    """Returns what an index remembers of a model.

    Args:
        files: the model.
        folder: of the index.

    Returns:
        `name`, `sha256`, and for a folder `relative`, its path as seen from the index.
    """
    prefix = SPLADE if files.name.startswith(SPLADE) else ""
    name = files.name.removeprefix(prefix)
    path = expand_user(name)
    facts = {"name": files.name, "sha256": files.checksum}
    if (prefix and name in SHORT_NAMES) or not path.is_dir():
        return facts
    facts["name"] = f"{prefix}{path.resolve()}"
    try:
        facts["relative"] = Path(os.path.relpath(path.resolve(), expand_user(folder).resolve())).as_posix()
    except ValueError:  # another drive
        return facts
    return facts


def sparse_model_facts(name: str, folder: str | Path) -> dict[str, str]:
    """Returns what an index remembers of a sparse encoder. Raises `SpectraError` if it is none."""
    return model_facts(find_any(name, ("sparse",)), folder)


def sparse_files(model: Any, width: int) -> dict[str, bytes]:
    """Returns the files of an index that come from its sparse encoder: vocabulary, and the query side if it is static.

    Args:
        model: the opened encoder.
        width: the number of terms.
    """
    return {VOCABULARY: json.dumps(_vocabulary(model, width)).encode()} | _query_side(model)


def static_query_side(name: str) -> dict[str, bytes]:
    """Returns the files of the query side of a sparse encoder, which is opened only if it is inference-free."""
    from spectra_nsa.models.sparse.facts import sparse_facts

    files = find_any(name, ("sparse",))
    if name.startswith(SPLADE) or sparse_facts(files.folder)["kind"] != "inference_free":
        return {}
    return _query_side(open_any(files))


def _query_side(model: Any) -> dict[str, bytes]:
    """Returns the files of a query side that `QueryWeights` opens; none if it is not static."""
    static = getattr(model, "static", None)
    if static is None or static("query") is None or not getattr(static("query").tokenizer, "is_fast", False):
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        model.save_side("query", Path(scratch) / "query")
        return {path.name: path.read_bytes() for path in (Path(scratch) / "query").iterdir()}


def _facts_of(index: Index) -> dict[str, Mapping[str, Any]]:
    models = index.commit.facts.get("models") or {}
    if not isinstance(models, Mapping) or not all(
        isinstance(facts, Mapping) and isinstance(facts.get("name"), str) and isinstance(facts.get("sha256"), str)
        for facts in models.values()
    ):
        raise SpectraError(f"{index.folder}: the manifest does not describe its models.")
    return dict(models)


def _vocabulary(model: Any, width: int) -> list[str]:
    """Returns the terms of a sparse encoder; a number for each that its tokenizer does not have."""
    terms = [f"#{number}" for number in range(width)]
    for term, number in model.tokenizer.get_vocab().items():
        if 0 <= number < width:
            terms[number] = term
    return terms
