"""The models that mining searches and judges with, and their vectors, which stay on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
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
from spectra_nsa.index.vectors import ROWS, DiskVectors, SparseVectors, block_count, csr_arrays
from spectra_nsa.metrics.finite import check_finite

if TYPE_CHECKING:
    from spectra_nsa.index.topk import IndexPairs
    from spectra_nsa.workflows.mine.pool import DistinctTexts, MiningPool

    # The number of a block of anchors, and pairs of its anchors with documents → the pairs' scores.
    PairScorer = Callable[[int, IndexPairs], NDArray[np.float32]]

ScorerKind = Literal["dense", "sparse", "bm25", "cross"]
SIDES = {"query": "anchors", "document": "documents"}
VECTORS = Cache("mining-vectors", keep=6)  # two per model
_VERSION = 2  # part of the cache key: raise it if the vectors of the same texts change


@dataclass(frozen=True)
class Scorer:
    """A model by name, not yet opened.

    Attributes:
        name: the folder or Hub name, or ``"bm25"``.
        kind: how it scores: by cosine, inner product of sparse vectors, BM25, or by reading both texts together.
        stamp: the SHA-256 of everything besides the texts that its scores depend on.
    """

    name: str
    kind: ScorerKind
    stamp: str

    def pair_scorer(self, pool: MiningPool) -> PairScorer:
        """Opens the model for scoring single pairs. A cross-encoder's score is the sigmoid of its logit.

        Raises:
            SpectraError: the model cannot be opened, or the disk is full.
        """
        from spectra_nsa.index.topk import pair_scores

        if self.kind != "cross":
            queries, documents = self.vectors(pool)
            return lambda number, pairs: pair_scores(queries.block(number), documents, pairs)
        predict = _open_cross_encoder(self.name)

        def score(number: int, pairs: IndexPairs) -> NDArray[np.float32]:
            anchors = pool.queries.get(number * ROWS + pairs.query_P)
            return predict(list(zip(anchors, pool.documents.get(pairs.document_P), strict=True)))

        return score

    def vectors(self, pool: MiningPool) -> tuple[DiskVectors | SparseVectors, DiskVectors | SparseVectors]:
        """Returns the vectors of the pool's anchors and documents. Encodes only the blocks that are not cached.

        Raises:
            SpectraError: the model cannot be opened, or the disk is full.
        """
        if self.kind == "bm25":
            from spectra_nsa.evaluation.bm25 import BM25System

            queries, documents = BM25System().sparse_rows(_all_texts(pool.queries), _all_texts(pool.documents))
            return SparseVectors(queries), SparseVectors(documents)
        opened: list[Any] = []

        def encode(role: str, texts: list[str]) -> dict[str, Any]:
            if not opened:
                opened.append(open_encoder(self))
            arrays = encode_block(opened[0], role, texts, sparse=self.kind == "sparse")
            if "vectors" in arrays:  # a sparse encoder checks its own
                check_finite(arrays["vectors"], self.name, f"vectors of {SIDES[role]}")
            return arrays

        return (
            _cached_vectors(self, "queries", pool.queries, lambda texts: encode("query", texts)),
            _cached_vectors(self, "documents", pool.documents, lambda texts: encode("document", texts)),
        )


def find_scorer(name: str, *, judge: bool = False) -> Scorer:
    """Identifies the model that a user names, without opening it.

    Args:
        name: a folder, a Hub name or ``"bm25"``.
        judge: whether it only scores single pairs, which a cross-encoder can do too.

    Raises:
        SpectraError: no such model exists, it does not score texts, or it is a cross-encoder that would have to search.
    """
    if name == "bm25":
        from importlib.metadata import version

        from spectra_nsa.evaluation.bm25 import SPLIT_RULES

        stamp = hashlib.sha256(f"bm25 {version('bm25s')} {SPLIT_RULES}".encode()).hexdigest()
        return Scorer(name, "bm25", stamp)
    from spectra_nsa.models.open import DENSE, find_model

    files = find_model(name, accept=(*DENSE, "sparse", "cross"))
    if files.kind == "cross" and not judge:
        raise SpectraError(
            f"{name} is a cross-encoder, which is too slow to search with. Search with another model and add "
            f"--judge {name}."
        )
    kinds: dict[str, ScorerKind] = {"sparse": "sparse", "cross": "cross"}
    return Scorer(name, kinds.get(files.kind, "dense"), _stamp(files.folder))


def _stamp(folder: Path) -> str:
    from spectra_nsa.core.precision import resolve_precision
    from spectra_nsa.models.checks import model_checksum

    facts = f"{_VERSION} {resolve_precision('auto')} {model_checksum(folder)}"
    return hashlib.sha256(facts.encode()).hexdigest()


def open_encoder(scorer: Scorer) -> Any:
    """Opens a dense or sparse model.

    Raises:
        SpectraError: it cannot be opened.
    """
    from spectra_nsa.models.open import DENSE, open_model

    return open_model(scorer.name, accept=(*DENSE, "sparse"), convert=False)


def encode_block(model: Any, role: str, texts: list[str], *, sparse: bool) -> dict[str, Any]:
    """Returns the vectors of texts as the arrays of a block, computed in bf16 if the processor has it."""
    from spectra_nsa.models.encoding.roles import encode_role

    if sparse:
        return csr_arrays(model.encode_csr(texts, role, precision="auto"))
    vectors = encode_role(model, texts, role, precision="auto", batch_size=64, normalize_embeddings=True)
    return {"vectors": np.asarray(vectors, dtype=np.float32)}


def _open_cross_encoder(name: str) -> Callable[[list[tuple[str, str]]], NDArray[np.float32]]:
    """Opens a cross-encoder as a function from pairs of texts to scores from 0 to 1.

    Raises:
        SpectraError: it cannot be opened, or it outputs several labels.
    """
    from torch import nn

    from spectra_nsa.core.precision import autocast, resolve_precision
    from spectra_nsa.models.open import open_model

    model = open_model(name, accept=("cross",))
    if model.num_labels != 1:
        raise SpectraError(f"{name} outputs {model.num_labels} labels, but a judge must output a single score.")

    def predict(pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        with autocast(model.device.type, resolve_precision("auto")):
            scores = model.predict(pairs, batch_size=64, activation_fn=nn.Sigmoid(), show_progress_bar=False)
        scores = np.asarray(scores, dtype=np.float32)
        check_finite(scores, name, "scores")
        return scores

    return predict


def _cached_vectors(
    scorer: Scorer, side: str, texts: DistinctTexts, encode: Callable[[list[str]], dict[str, Any]]
) -> DiskVectors:
    blocks = Blocks(VECTORS.entry(model=scorer.stamp, side=side, texts=texts.digest, rows=ROWS))
    for number in progress(blocks.missing(block_count(len(texts))), label=f"encoding {side}"):
        part = np.arange(number * ROWS, min((number + 1) * ROWS, len(texts)))
        blocks.put(number, **encode(texts.get(part)))
        trim_heap()  # batches of many shapes fragment it
    return DiskVectors(blocks, len(texts))


def _all_texts(texts: DistinctTexts) -> Iterator[str]:
    for start in range(0, len(texts), ROWS):
        yield from texts.get(np.arange(start, min(start + ROWS, len(texts))))
