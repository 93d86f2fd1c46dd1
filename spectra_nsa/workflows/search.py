"""Exact search over texts by a model."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra_nsa.core.cache import cache_folder
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.files import atomic_write, write_json

if TYPE_CHECKING:
    from spectra_nsa.index.cascade import Scoring
    from spectra_nsa.models.sentence import SpectraSentenceTransformer

KEPT = 8  # corpora whose vectors stay on disk


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One found text: its place in the candidates, its cosine to the query, and the text."""

    index: int
    score: float
    text: str


def similar_texts(
    query: str | Sequence[str], candidates: Sequence[str], model: SpectraSentenceTransformer, k: int = 5
) -> list[Any]:
    """The k candidates nearest to a query by cosine, best first.

    Args:
        query: a text, or several.
        candidates: the texts to search.
        model: any SentenceTransformer.
        k: how many; all where there are fewer.

    Returns:
        a list of `Hit`; for several queries a list of such lists.

    Raises:
        SpectraError: there are no candidates, or k is not positive.
    """
    texts = list(candidates)
    if not texts or k < 1:
        raise SpectraError("there is nothing to search: give at least one candidate, and k of at least 1.")
    queries = [query] if isinstance(query, str) else list(query)
    documents = model.encode_document(texts, normalize_embeddings=True, show_progress_bar=False)
    questions = model.encode_query(queries, normalize_embeddings=True, show_progress_bar=False)
    hits = [top_hits(row, texts, k) for row in questions @ documents.T]
    return hits[0] if isinstance(query, str) else hits


def top_hits(scores: np.ndarray, texts: Sequence[str], k: int) -> list[Hit]:
    """The k best of a row of scores; equal scores in the order of the texts."""
    order = np.argsort(-scores, kind="stable")[:k]
    return [Hit(index=int(i), score=float(scores[i]), text=texts[i]) for i in order]


def remember_model(folder: Path) -> None:
    """Notes the last run's model, which `spectra search` uses when none is named."""
    write_json(cache_folder("last.json"), {"model": str(folder.resolve())})


def last_model() -> str:
    """The last run's model folder.

    Raises:
        SpectraError: there is none, or it is gone.
    """
    try:
        folder = json.loads((cache_folder("last.json")).read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, KeyError) as error:
        raise SpectraError("no run yet: name a model, or run `spectra quickstart` first.") from error
    if not Path(folder).is_dir():
        raise SpectraError(f"the last run's model {folder} is gone: name a model.")
    return str(folder)


def encode_corpus(model: SpectraSentenceTransformer, texts: Sequence[str]) -> np.ndarray:
    """(N, D) unit vectors of documents, in bf16 where the processor has it (cosine to fp32 about 0.9999)."""
    from spectra_nsa.core.precision import autocast, resolve_precision

    with autocast(model.device.type, resolve_precision("auto")):
        return model.encode_document(
            list(texts), normalize_embeddings=True, show_progress_bar=sys.stderr.isatty() and len(texts) > 500
        )


def encode_codes(model: SpectraSentenceTransformer, texts: Sequence[str]) -> np.ndarray:
    """(N, 32) packed bits of documents, in the precision of `encode_corpus`."""
    from spectra_nsa.core.precision import autocast, resolve_precision

    with autocast(model.device.type, resolve_precision("auto")):
        return model.encode_document(list(texts), outputs=["fast"])["fast"]


def code_hits(
    model: SpectraSentenceTransformer,
    name: str,
    query: str,
    texts: Sequence[str],
    k: int,
    *,
    bits: int,
    candidates: int,
    scoring: Scoring,
) -> list[Hit]:
    """The k best by the code cascade (docs/model.md, section 5): see `Cascade.search` for the arguments."""
    from spectra_nsa.index.cascade import build_cascade

    found = model.encode_query([query], outputs=["embedding", "fast_logits"])
    unit = found["embedding"] / np.linalg.norm(found["embedding"], axis=1, keepdims=True)
    cascade = build_cascade(cached_documents(model, name, texts), cached_codes(model, name, texts), bits=bits)
    scores, places = cascade.search(unit, found["fast_logits"], k, candidates=candidates, scoring=scoring)
    return [Hit(index=int(i), score=float(s), text=texts[i]) for i, s in zip(places[0], scores[0], strict=True)]


def cached_documents(model: SpectraSentenceTransformer, name: str, texts: Sequence[str]) -> np.ndarray:
    """`encode_corpus`, kept on disk until the model or the texts change.

    Args:
        model: the open model.
        name: its folder or Hub name.
        texts: the corpus.
    """
    return _kept("", name, texts, lambda: encode_corpus(model, texts))


def cached_codes(model: SpectraSentenceTransformer, name: str, texts: Sequence[str]) -> np.ndarray:
    """(N, 32) uint8, the 256 bits of each document, kept like `cached_documents`."""
    return _kept("codes\0", name, texts, lambda: encode_codes(model, texts))


def _kept(kind: str, name: str, texts: Sequence[str], make: Callable[[], np.ndarray]) -> np.ndarray:
    weights = Path(name) / "model.safetensors"
    stamp = weights.stat() if weights.is_file() else None
    key = hashlib.sha256(
        f"{kind}{Path(name).resolve() if stamp else name}\0{stamp and (stamp.st_mtime_ns, stamp.st_size)}".encode()
    )
    for text in texts:
        key.update(b"\0" + text.encode())
    path = cache_folder("vectors") / f"{key.hexdigest()[:32]}.npy"
    if path.is_file():
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            path.unlink(missing_ok=True)  # a damaged cache is made anew
    vectors = make()
    with atomic_write(path, "wb") as file:
        np.save(file, vectors)
    for old in sorted(path.parent.glob("*.npy"), key=lambda found: found.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
    return vectors
