"""The model that mining searches with: what its scores depend on, and its vectors, kept on disk as they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spectra_nsa.core.console import progress
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.core.memory import trim_heap
from spectra_nsa.index.blocks import Blocks

if TYPE_CHECKING:
    from spectra_nsa.index.topk import Matrix, Vectors
    from spectra_nsa.text.pool import Pool, Texts

Kind = Literal["dense", "sparse", "bm25"]
KEPT = 6  # sets of vectors that stay on disk: two a model
_PARTS = {".json", ".safetensors", ".bin", ".txt", ".model"}  # of a model folder, that vectors depend on
_OTHER = {"onnx", "openvino"}
_RULES = 1  # part of the key: raise it when what becomes of a text changes


@dataclass(frozen=True)
class Teacher:
    """A model by name, not yet opened.

    Attributes:
        name: the folder or Hub name, or ``"bm25"``.
        kind: how it scores: cosine, inner product of sparse vectors, or BM25.
        stamp: SHA-256 of what its scores depend on beside the texts.
    """

    name: str
    kind: Kind
    stamp: str

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


def find_teacher(name: str) -> Teacher:
    """Looks at what a user names, without opening it.

    Raises:
        SpectraError: nothing is there, or it is no model that turns texts into vectors.
    """
    if name == "bm25":
        from importlib.metadata import version

        return Teacher(name, "bm25", hashlib.sha256(f"bm25 {version('bm25s')}".encode()).hexdigest())
    from spectra_nsa.core.files import read_json
    from spectra_nsa.models.checks import resolve_folder

    folder = resolve_folder(name)
    facts = folder / "config_sentence_transformers.json"
    made_for = read_json(facts).get("model_type", "SentenceTransformer") if facts.is_file() else "SentenceTransformer"
    kinds: dict[str, Kind] = {"SentenceTransformer": "dense", "SparseEncoder": "sparse"}
    if made_for not in kinds:
        raise SpectraError(f"{name} is a {made_for}; mining takes a SentenceTransformer, a SparseEncoder or bm25.")
    return Teacher(name, kinds[made_for], _stamp(folder))


def _stamp(folder: Path) -> str:
    from spectra_nsa.core.checksums import describe
    from spectra_nsa.models.precision import resolve_precision

    digest = hashlib.sha256(f"{_RULES} {resolve_precision('auto')}".encode())
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in _PARTS and path.is_file() and not _OTHER & set(name.parts):
            digest.update(f"\0{name.as_posix()}\0{describe(path)['sha256']}".encode())
    return digest.hexdigest()


class Encoder:
    """An open model: texts in, a block of vectors out, in bf16 where the processor has it."""

    def __init__(self, model: Any, *, sparse: bool) -> None:
        self.model, self.sparse = model, sparse

    def encode_query(self, texts: list[str]) -> dict[str, Any]:
        """The arrays of anchors, with the model's query prompt where it has one."""
        return self._encode(self.model.encode_query, texts)

    def encode_document(self, texts: list[str]) -> dict[str, Any]:
        """The arrays of documents, with the model's document prompt where it has one."""
        return self._encode(self.model.encode_document, texts)

    def _encode(self, encode: Any, texts: list[str]) -> dict[str, Any]:
        from spectra_nsa.models.precision import autocast, resolve_precision

        with autocast(self.model.device.type, resolve_precision("auto")):
            if not self.sparse:
                found = encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
                return {"vectors": np.asarray(found, dtype=np.float32)}
            found = encode(texts, batch_size=32, convert_to_sparse_tensor=True, show_progress_bar=False)
        return _rows(found)


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
    if teacher.kind == "dense":
        from spectra_nsa.evaluation.systems import DenseSystem, open_system

        system = open_system(teacher.name)
        assert isinstance(system, DenseSystem)
        return Encoder(system.model, sparse=False)
    from safetensors import SafetensorError
    from sentence_transformers import SparseEncoder

    import spectra_nsa.hf  # noqa: F401  our own masked-LM model may be inside
    from spectra_nsa.models.checks import resolve_folder

    try:
        model = SparseEncoder(str(resolve_folder(teacher.name)), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SpectraError(f"{teacher.name} cannot be opened as a sparse encoder: {error}") from error
    return Encoder(model, sparse=True)


def _kept(teacher: Teacher, side: str, texts: Texts, encode: Callable[[list[str]], dict[str, Any]]) -> Vectors:
    from spectra_nsa.index.topk import ROWS, Vectors, blocks_of

    key = hashlib.sha256(f"{teacher.stamp} {side} {texts.digest} {ROWS}".encode()).hexdigest()[:32]
    blocks = Blocks("mining-vectors", key, keep=KEPT)
    for number in progress(blocks.missing(blocks_of(len(texts))), label=f"encoding {side}"):
        part = np.arange(number * ROWS, min((number + 1) * ROWS, len(texts)))
        blocks.put(number, **encode(texts.get(part)))
        trim_heap()  # batches of ever new shapes leave holes
    return Vectors(blocks, len(texts))


def _every(texts: Texts) -> Any:
    from spectra_nsa.index.topk import ROWS

    for start in range(0, len(texts), ROWS):
        yield from texts.get(np.arange(start, min(start + ROWS, len(texts))))
