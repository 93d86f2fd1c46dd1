"""The models that mining searches and judges with: what their scores depend on, and their vectors, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spectra_nsa.core.cache import Cache
from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.memory import trim_heap
from spectra_nsa.index.blocks import Blocks

if TYPE_CHECKING:
    from spectra_nsa.index.topk import Matrix, Own, Vectors
    from spectra_nsa.text.pool import Pool, Texts

    # The number of a block of anchors, and pairs of it → their scores.
    Scorer = Callable[[int, Own], NDArray[np.float32]]

Kind = Literal["dense", "sparse", "bm25", "cross"]
VECTORS = Cache("mining-vectors", keep=6)  # two a model
_RULES = 1  # part of the key: raise it when what becomes of a text changes


@dataclass(frozen=True)
class Teacher:
    """A model by name, not yet opened.

    Attributes:
        name: the folder or Hub name, or ``"bm25"``.
        kind: how it scores: cosine, inner product of sparse vectors, BM25, or both texts read together.
        stamp: SHA-256 of what its scores depend on beside the texts.
    """

    name: str
    kind: Kind
    stamp: str

    def scorer(self, pool: Pool) -> Scorer:
        """Scores of single pairs; of a cross-encoder its logit through a sigmoid, from 0 to 1.

        Raises:
            SpectraError: the model cannot be opened, or the disk is full.
        """
        from spectra_nsa.index.topk import ROWS, pair_scores

        if self.kind != "cross":
            queries, documents = self.vectors(pool)
            return lambda number, pairs: pair_scores(queries.block(number), documents, pairs)
        model = _open_cross_encoder(self)

        def score(number: int, pairs: Own) -> NDArray[np.float32]:
            asked, answers = pool.queries.get(number * ROWS + pairs.query_P), pool.documents.get(pairs.document_P)
            return model(list(zip(asked, answers, strict=True)))

        return score

    def vectors(self, pool: Pool) -> tuple[Vectors | Matrix, Vectors | Matrix]:
        """The pool's anchors and documents; what an earlier or killed run has encoded is used again.

        Raises:
            SpectraError: the model cannot be opened, or the disk is full.
        """
        from spectra_nsa.index.topk import Matrix

        if self.kind == "bm25":
            from spectra_nsa.evaluation.bm25 import BM25System

            rows = BM25System().sparse_rows(_every(pool.queries), _every(pool.documents))
            return Matrix(rows[0]), Matrix(rows[1])
        opened: list[Any] = []

        def model() -> Any:
            if not opened:
                opened.append(open_encoder(self))
            return opened[0]

        return (
            _kept(self, "queries", pool.queries, lambda texts: model().encode_query(texts)),
            _kept(self, "documents", pool.documents, lambda texts: model().encode_document(texts)),
        )


def find_teacher(name: str, *, judge: bool = False) -> Teacher:
    """Looks at what a user names, without opening it.

    Args:
        name: a folder, a Hub name or ``"bm25"``.
        judge: whether it has single pairs to score only, which a cross-encoder does too.

    Raises:
        SpectraError: nothing is there, it is no model that scores texts, or a cross-encoder that is to search.
    """
    if name == "bm25":
        from importlib.metadata import version

        return Teacher(name, "bm25", hashlib.sha256(f"bm25 {version('bm25s')}".encode()).hexdigest())
    from spectra_nsa.models.open import DENSE, find_model

    found = find_model(name, accept=(*DENSE, "sparse", "cross"))
    if found.kind == "cross" and not judge:
        raise SpectraError(
            f"{name} is a cross-encoder, too slow to search with: search with another, and --judge {name}."
        )
    kinds: dict[str, Kind] = {"sparse": "sparse", "cross": "cross"}
    return Teacher(name, kinds.get(found.kind, "dense"), _stamp(found.folder))


def _stamp(folder: Path) -> str:
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.models.checks import model_checksum

    facts = f"{_RULES} {resolve_precision('auto')} {model_checksum(folder)}"
    return hashlib.sha256(facts.encode()).hexdigest()


class Encoder:
    """An open model: texts in, a block of vectors out, in bf16 where the processor has it."""

    def __init__(self, model: Any, *, sparse: bool) -> None:
        self.model, self.sparse = model, sparse

    def encode_query(self, texts: list[str]) -> dict[str, Any]:
        """The arrays of anchors, with the model's query prompt where it has one."""
        return self._encode("query", texts)

    def encode_document(self, texts: list[str]) -> dict[str, Any]:
        """The arrays of documents, with the model's document prompt where it has one."""
        return self._encode("document", texts)

    def _encode(self, role: str, texts: list[str]) -> dict[str, Any]:
        from spectra_nsa.models.encode import encode_role

        if self.sparse:
            options = {"batch_size": 32, "convert_to_sparse_tensor": True}
            return _rows(encode_role(self.model, texts, role, precision="auto", **options))
        found = encode_role(self.model, texts, role, precision="auto", batch_size=64, normalize_embeddings=True)
        return {"vectors": np.asarray(found, dtype=np.float32)}


def _rows(found: Any) -> dict[str, Any]:
    """A sparse tensor as the arrays of CSR rows."""
    from scipy.sparse import csr_matrix

    from spectra_nsa.index.topk import pack

    found = found.cpu().float().coalesce()
    return pack(csr_matrix((found.values().numpy(), found.indices().numpy()), shape=tuple(found.shape)))


def open_encoder(teacher: Teacher) -> Encoder:
    """Opens a dense or sparse model.

    Raises:
        SpectraError: it cannot be opened.
    """
    from spectra_nsa.models.open import DENSE, open_model

    model = open_model(teacher.name, accept=(*DENSE, "sparse"), convert=False)
    return Encoder(model, sparse=teacher.kind == "sparse")


def _open_cross_encoder(teacher: Teacher) -> Callable[[list[tuple[str, str]]], NDArray[np.float32]]:
    """Pairs of texts → their scores, from 0 to 1.

    Raises:
        SpectraError: it cannot be opened, or gives several labels.
    """
    from torch import nn

    from spectra_nsa.core.precision import autocast, resolve_precision
    from spectra_nsa.models.open import open_model

    model = open_model(teacher.name, accept=("cross",))
    if model.num_labels != 1:
        raise SpectraError(f"{teacher.name} gives {model.num_labels} labels; a judge gives one score.")

    def score(pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        with autocast(model.device.type, resolve_precision("auto")):
            found = model.predict(pairs, batch_size=64, activation_fn=nn.Sigmoid(), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    return score


def _kept(teacher: Teacher, side: str, texts: Texts, encode: Callable[[list[str]], dict[str, Any]]) -> Vectors:
    from spectra_nsa.index.topk import ROWS, Vectors, blocks_of

    blocks = Blocks(VECTORS.entry(model=teacher.stamp, side=side, texts=texts.digest, rows=ROWS))
    for number in progress(blocks.missing(blocks_of(len(texts))), label=f"encoding {side}"):
        part = np.arange(number * ROWS, min((number + 1) * ROWS, len(texts)))
        blocks.put(number, **encode(texts.get(part)))
        trim_heap()  # batches of ever new shapes leave holes
    return Vectors(blocks, len(texts))


def _every(texts: Texts) -> Any:
    from spectra_nsa.index.topk import ROWS

    for start in range(0, len(texts), ROWS):
        yield from texts.get(np.arange(start, min(start + ROWS, len(texts))))
