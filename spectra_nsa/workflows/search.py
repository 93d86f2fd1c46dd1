"""Exact search over texts by a model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.core.cache import Cache, Entry, cache_file
from spectra_nsa.core.checksums import texts_sha256
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import expand_user, read_json_object, write_json
from spectra_nsa.core.inputs import text_list
from spectra_nsa.core.strings import is_blank
from spectra_nsa.metrics.finite import check_finite

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from spectra_nsa.index.cascade import Scoring
    from spectra_nsa.models.open import ModelFolder
    from spectra_nsa.models.saved import SavedModel
    from spectra_nsa.models.sentence import SpectraSentenceTransformer
    from spectra_nsa.runtime import Runtime

    TextEncoder = SavedModel | SpectraSentenceTransformer

VECTORS = Cache("vectors", keep=8)
RULES = 1  # part of the cache key: raise it if the vectors of the same texts change
_FILE = "vectors.npy"
_COMPUTED = (("cpu", "bf16"), ("cpu", "fp32"), ("cuda", "bf16"), ("cuda", "fp16"))  # where `encode_corpus` may run


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A search hit: its index among the candidates, its cosine to the query, and its text."""

    index: int
    score: float
    text: str


def similar_texts(
    query: str | Iterable[str], candidates: Iterable[str], model: SentenceTransformer, k: int = 5
) -> list[Any]:
    """Returns the k candidates nearest to a query by cosine, best first.

    Args:
        query: one text, or any iterable of texts.
        candidates: the texts to search, any iterable.
        model: any SentenceTransformer.
        k: number of hits; all candidates if there are fewer.

    Returns:
        a list of `Hit`; for several queries, a list of such lists.

    Raises:
        SpectraError: no candidates, an empty query, k is not positive, or the model computes NaN or infinity.
        UsageError: an item is no text.
    """
    from spectra_nsa.models.encoding.roles import encode_role

    texts = text_list(candidates, "candidates")
    if not texts or k < 1:
        raise SpectraError("there is nothing to search: give at least one candidate, and k of at least 1.")
    queries = [query] if isinstance(query, str) else text_list(query, "query")
    if not queries:
        return []
    if any(map(is_blank, queries)):
        raise SpectraError("a query is empty: it has no visible character.")
    documents, query_vectors = (
        np.asarray(encode_role(model, side, role, normalize_embeddings=True), dtype=np.float32)
        for side, role in ((texts, "document"), (queries, "query"))
    )
    check_finite(documents, "the model", "vectors of candidates")
    check_finite(query_vectors, "the model", "vectors of queries")
    hits = [top_hits(row, texts, k) for row in query_vectors @ documents.T]
    return hits[0] if isinstance(query, str) else hits


def top_hits(scores: np.ndarray, texts: Sequence[str], k: int) -> list[Hit]:
    """Returns the k best of a row of scores; equal scores stay in the order of the texts."""
    order = np.argsort(-scores, kind="stable")[:k]
    return [Hit(index=int(i), score=float(scores[i]), text=texts[i]) for i in order]


def sparse_hits(files: ModelFolder, query: str, texts: Sequence[str], k: int) -> list[Hit]:
    """Returns the k best texts by a sparse encoder, exactly; a text that shares no term with the query is no hit.

    Args:
        files: the encoder.
        query: the query.
        texts: the corpus, which is encoded each time; an index keeps its rows.
        k: number of hits.

    Raises:
        SpectraError: the model cannot be opened, or computes NaN or infinity.
    """
    from spectra_nsa.evaluation.sparse.encoding import encode_rows
    from spectra_nsa.workflows.cut_texts import warn_cut
    from spectra_nsa.workflows.index_models import PROGRESS_FROM, open_any

    model = open_any(files)
    warn_cut(model, texts, "document", files.name)
    warn_cut(model, [query], "query", files.name)
    rows = encode_rows(model, texts, "document", name=files.name, precision="auto", progress=len(texts) > PROGRESS_FROM)
    asked = encode_rows(model, [query], "query", name=files.name)
    scores = np.asarray((rows @ asked.T).toarray(), dtype=np.float32).ravel()
    return [hit for hit in top_hits(scores, texts, k) if hit.score > 0]


def remember_model(folder: Path) -> None:
    """Records the last run's model, which `spectra search` uses if no model is named; a failure is only a warning."""
    try:
        write_json(cache_file("last.json"), {"model": str(folder.resolve())})
    except (SpectraError, OSError) as error:
        print(f"spectra: warning: this model is not remembered for spectra search: {error}", file=sys.stderr)


def last_model() -> str:
    """Returns the model folder of the last run.

    Raises:
        SpectraError: there is no run yet, or its model was deleted.
    """
    try:
        folder = str(read_json_object(cache_file("last.json"))["model"])
    except (SpectraError, KeyError) as error:
        raise SpectraError("no run yet: name a model, or run `spectra quickstart` first.") from error
    if not expand_user(folder).is_dir():
        raise SpectraError(f"the last run's model {folder} no longer exists: name a model.")
    return folder


def encode_corpus(model: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """Returns (N, D) unit vectors of documents, in bf16 if the processor has it (cosine to fp32 about 0.9999)."""
    from spectra_nsa.models.encoding.roles import encode_role
    from spectra_nsa.workflows.index_models import PROGRESS_FROM

    show_bar = len(texts) > PROGRESS_FROM
    return encode_role(
        model, texts, "document", precision="auto", normalize_embeddings=True, show_progress_bar=show_bar
    )


def encode_codes(model: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """Returns (N, 32) packed bits of documents, in the precision of `encode_corpus`."""
    from spectra_nsa.models.encoding.roles import encode_role

    return encode_role(model, texts, "document", precision="auto", outputs=["fast"])["fast"]


def code_hits(
    model: TextEncoder | Runtime,
    folder: Path,
    query: str,
    texts: Sequence[str],
    k: int,
    *,
    bits: int,
    candidates: int,
    scoring: Scoring,
) -> list[Hit]:
    """Returns the k best texts, or all, by codes first (docs/model.md, section 5); see `Cascade.search`.

    Raises:
        SpectraError: the model computes NaN or infinity.
    """
    from spectra_nsa.index.cascade import build_cascade

    if not texts:
        return []
    outputs = model.encode_query([query], outputs=["embedding", "fast_logits"])
    for name in outputs:
        check_finite(outputs[name], str(folder), "vectors of queries")
    unit_vector = outputs["embedding"] / np.linalg.norm(outputs["embedding"], axis=1, keepdims=True)
    cascade = build_cascade(cached_documents(model, folder, texts), cached_codes(model, folder, texts), bits=bits)
    scores, rows = cascade.search(unit_vector, outputs["fast_logits"], k, candidates=candidates, scoring=scoring)
    return [Hit(index=int(i), score=float(s), text=texts[i]) for i, s in zip(rows[0], scores[0], strict=True)]


def cached_documents(model: TextEncoder | Runtime, folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Returns the vectors of `encode_corpus`, cached on disk until the model or the texts change.

    Args:
        model: the opened model; its export, if `are_cached`.
        folder: the model's folder.
        texts: the corpus.
    """
    return _cached("embedding", model, folder, texts, encode_corpus)


def cached_codes(model: TextEncoder | Runtime, folder: Path, texts: Sequence[str]) -> np.ndarray:
    """Returns (N, 32) uint8, the 256 bits of each document, cached like `cached_documents`."""
    return _cached("fast", model, folder, texts, encode_codes)


def are_cached(outputs: Sequence[str], export: Runtime, folder: Path, texts: Sequence[str]) -> bool:
    """Returns whether outputs of a corpus, such as ``"embedding"``, are on disk already.

    Args:
        outputs: their names.
        export: of the model.
        folder: the model's folder.
        texts: the corpus.
    """
    return all(_read(_entries(name, export, folder, texts), len(texts)) is not None for name in outputs)


def _cached(
    output: str,
    model: TextEncoder | Runtime,
    folder: Path,
    texts: Sequence[str],
    make: Callable[[Any, Sequence[str]], np.ndarray],
) -> np.ndarray:
    from spectra_nsa.workflows.cut_texts import warn_cut

    entries = _entries(output, model, folder, texts)
    if (vectors := _read(entries, len(texts))) is not None:
        return vectors
    warn_cut(model, texts, "document", str(folder))
    vectors = make(model, texts)
    check_finite(vectors, str(folder), "vectors of documents")
    try:
        with entries[0].draft() as draft:
            np.save(draft / _FILE, vectors)
            entries[0].commit(draft, {"rows": len(vectors)})
    except SpectraError as error:
        print(f"spectra: warning: the vectors could not be cached for the next search: {error}", file=sys.stderr)
    return vectors


def _entries(output: str, model: TextEncoder | Runtime, folder: Path, texts: Sequence[str]) -> list[Entry]:
    """Returns the place of vectors in the cache; for an export all places where the model may have put them."""
    from spectra_nsa.models.checks import model_checksum

    if device := getattr(model, "device", None):
        from spectra_nsa.core.precision import resolve_precision

        computed: Sequence[tuple[str, str]] = [(device.type, resolve_precision("auto"))]
    else:
        computed = _COMPUTED
    key = {
        "rules": RULES,
        "output": output,
        "model": model_checksum(folder),
        "prompt": model.prompts["document"],
        "max_seq_length": model.max_seq_length,
        "texts": texts_sha256(texts),
    }
    return [VECTORS.entry(**key, device=device, precision=precision) for device, precision in computed]


def _read(entries: Sequence[Entry], rows: int) -> np.ndarray | None:
    for entry in entries:
        if entry.read(rows=rows) is not None:
            with contextlib.suppress(OSError, ValueError):
                vectors: np.ndarray = np.load(entry.folder / _FILE, allow_pickle=False)
                return vectors
    return None
