"""What can be measured: a system ranks documents for queries, and most do so with embeddings.

Legend: Q queries, N documents, D width, k hits a query.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    import numpy as np

_BLOCK = 32_000_000  # similarities held at a time: 128 MB


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The best documents of each query, best first.

    Attributes:
        index: (Q, k) int64 positions in the list of documents; −1 where a query has fewer hits.
        scores: (Q, k) float32, larger = better; −∞ beside −1.
    """

    index: np.ndarray
    scores: np.ndarray


class System(Protocol):
    """Anything that ranks."""

    name: str

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        """The k best documents of each query (fewer where there are fewer)."""
        ...


class DenseSystem:
    """A sentence-transformers model (or anything with its `encode_query` and `encode_document`), by exact cosine."""

    def __init__(
        self, name: str, model: Any, *, dim: int | None = None, batch_size: int = 64, precision: str = "fp32"
    ) -> None:
        """Wraps a model.

        Args:
            name: what the results call it.
            model: a `SentenceTransformer`, ours or any other.
            dim: keep this many leading dimensions (re-normalised); ``None`` keeps all.
            batch_size: texts a forward pass.
            precision: what it computes in: ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``.

        Raises:
            SpectraError: the model has fewer dimensions than `dim`.
        """
        width = model.get_embedding_dimension() if dim is not None else None
        if dim is not None and not 1 <= dim <= (width or dim):
            raise SpectraError(f"{name} has {width} dimensions: --dim {dim} is not between 1 and {width}.")
        self.name = name
        self.model = model
        self.dim = dim
        self.batch_size = batch_size
        self.precision = precision

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → (Q, D) float32 unit rows, with the model's query prompt where it has one."""
        return self._encode(self.model.encode_query, texts)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → (N, D) float32 unit rows, with the model's document prompt where it has one."""
        return self._encode(self.model.encode_document, texts)

    def search(self, queries: Sequence[str], documents: Sequence[str], k: int) -> Ranking:
        """The k nearest documents of each query by cosine."""
        return nearest(self.encode_queries(queries), self.encode_documents(documents), k)

    def _encode(self, encode: Any, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        if not texts:
            return np.zeros((0, self.dim or self.model.get_embedding_dimension() or 1), dtype=np.float32)
        with self._computing():
            vectors = encode(
                list(texts),
                batch_size=self.batch_size,
                normalize_embeddings=True,
                truncate_dim=self.dim,
                show_progress_bar=sys.stderr.isatty(),
            )
        return np.asarray(vectors, dtype=np.float32)

    def _computing(self) -> AbstractContextManager[None]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        from spectra_nsa.models.precision import autocast, resolve_precision

        return autocast(self.model.device.type, resolve_precision(self.precision))


def nearest(queries: np.ndarray, documents: np.ndarray, k: int) -> Ranking:
    """Exact search by inner product, in blocks of queries: (Q, D), (N, D) → the min(k, N) best of each query.

    Equal scores are ordered by position. Memory is bounded by the block, whatever Q and N.
    """
    import numpy as np

    k = min(k, len(documents))
    index = np.zeros((len(queries), k), dtype=np.int64)
    scores = np.zeros((len(queries), k), dtype=np.float32)
    step = max(1, _BLOCK // max(1, len(documents)))
    for start in range(0, len(queries) if k else 0, step):
        rows = slice(start, start + step)
        similarity = queries[rows] @ documents.T
        top = np.sort(np.argpartition(-similarity, k - 1, axis=1)[:, :k], axis=1)
        values = np.take_along_axis(similarity, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        index[rows] = np.take_along_axis(top, order, axis=1)
        scores[rows] = np.take_along_axis(values, order, axis=1)
    return Ranking(index=index, scores=scores)


def open_system(name_or_folder: str | Path, *, dim: int | None = None, precision: str = "fp32") -> System:
    """Opens what a user names.

    Args:
        name_or_folder: ``"bm25"``; the folder of a saved model, ours or any sentence-transformers one; or a Hub name.
        dim: keep this many leading dimensions; ``None`` keeps all. Does not concern ``"bm25"``.
        precision: what a model computes in, as in `DenseSystem`.

    Raises:
        SpectraError: nothing is there, or it cannot be opened.
    """
    if str(name_or_folder) == "bm25":
        from spectra_nsa.evaluation.bm25 import BM25System

        return BM25System()
    name = _short_name(name_or_folder)
    model = _open_model(name_or_folder)
    return DenseSystem(name if dim is None else f"{name}@{dim}", model, dim=dim, precision=precision)


def _short_name(name_or_folder: str | Path) -> str:
    """A Hub name as it is; of a folder its last part, or the run's name for ``runs/NAME/model``."""
    path = Path(name_or_folder).expanduser()
    if not path.is_dir():
        return str(name_or_folder)
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in ("model", "final", "best") else path.name


def _open_model(name_or_folder: str | Path) -> Any:
    """Our own models by our loader; any other by sentence-transformers, from local files only."""
    from spectra_nsa.core.files import read_json
    from spectra_nsa.models.checks import resolve_folder
    from spectra_nsa.models.sentence import load

    folder = resolve_folder(name_or_folder)
    config = folder / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "spectra_nsa":
        return load(folder)
    if not config.is_file() and not (folder / "modules.json").is_file():
        raise SpectraError(f"{folder} has neither config.json nor modules.json: it is not a model folder.")
    import transformers
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    try:
        return SentenceTransformer(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SpectraError(f"{name_or_folder} cannot be opened as a sentence-transformers model: {error}") from error
