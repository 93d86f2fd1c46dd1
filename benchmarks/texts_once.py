"""Collections of texts, and vectors computed once per text, for `codes.py` and `matryoshka.py`.

This file is not a command.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spectra_nsa.core.files import atomic_write
from spectra_nsa.core.precision import autocast, resolve_precision
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.core.starter import sha256
from spectra_nsa.heads.fit_codes import fit_codes, hashed_pair
from spectra_nsa.index.cascade import unpack_signs
from spectra_nsa.models.open import open_model
from spectra_nsa.models.sentence import SpectraSentenceTransformer, load
from spectra_nsa.text.beir import load_beir
from spectra_nsa.text.duplicates import near_duplicates
from spectra_nsa.text.sources import load_source
from spectra_nsa.workflows.fit import excerpts

LENGTH = 128  # tokens per text
Vectors = dict[str, np.ndarray]
Code = tuple[np.ndarray, np.ndarray]  # of queries (Q, 256) and documents (N, 256): floats whose signs are the bits


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Documents, queries, and for each query the grades of the documents that answer it."""

    name: str
    documents: list[str]
    queries: list[str]
    relevant: list[dict[int, int]]


def data_folder() -> Path:
    return Path(os.environ.get("SPECTRA_DATA", "../shared/data"))


def collection(name: str, data: Path) -> Collection:
    """Loads `stdlib`, `medquad` (6,000 pairs, seed 0), a BEIR folder in `data`, or any source of pairs."""
    if (data / name / "corpus.jsonl.gz").is_file():
        return _judged(name, data / name)
    source = {"stdlib": "python:stdlib", "medquad": str(data / "medquad" / "train.jsonl.gz")}.get(name, name)
    rows = load_source(source).dataset
    twice = near_duplicates(list(rows["anchor"]), None) | near_duplicates(list(rows["positive"]), None)
    rows = rows.select(np.flatnonzero(~twice))
    if name == "medquad":
        rows = rows.shuffle(seed=0).select(range(min(6_000, len(rows))))
    own = [{row: 1} for row in range(len(rows))]
    return Collection(name=name, documents=list(rows["positive"]), queries=list(rows["anchor"]), relevant=own)


def _judged(name: str, folder: Path) -> Collection:
    found = load_beir(folder)
    documents = {key: text for key, text in found.corpus.items() if text}
    row_of = {key: row for row, key in enumerate(documents)}
    judged = {query: {row_of[d]: g for d, g in grades.items() if d in row_of} for query, grades in found.qrels.items()}
    asked = [query for query, grades in judged.items() if any(grade > 0 for grade in grades.values())]
    return Collection(
        name=name,
        documents=list(documents.values()),
        queries=[found.queries[query] for query in asked],
        relevant=[judged[query] for query in asked],
    )


class Once:
    """A model that was saved and loaded again, with a cache of its vectors.

    Args:
        model: a saved model or a checkpoint. The untrained heads of a checkpoint use seed 0.
        cache: a folder that caches the vectors between runs; ``None`` caches them in memory.
    """

    def __init__(self, model: str, cache: Path | None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.saved = Path(self._folder.name) / "model"
        set_seed(0)
        open_model(model).save_pretrained(str(self.saved))
        self.model: SpectraSentenceTransformer = load(self.saved)
        self.model.max_seq_length = min(self.model.max_seq_length or LENGTH, LENGTH)
        spectra = self.model.spectra
        trained = spectra.config.entity or bool(spectra.entity.prior.idf.any())  # training fills the table first
        self.outputs = ["embedding", "semantic", "anchor64", "fast_logits", *(["entity"] if trained else [])]
        self._weights = sha256(self.saved / "model.safetensors")
        self._cache, self._vectors = cache, {}

    def vectors(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """Returns the outputs of the texts, with unit `embedding`; `entity` only if the model has learned it."""
        precision = resolve_precision("auto")
        key = hashlib.sha256("\0".join([self._weights, precision, str(query), *texts]).encode()).hexdigest()
        path = self._cache / f"{key}.npz" if self._cache else None
        if key not in self._vectors:
            if path is not None and path.is_file():
                with np.load(path, allow_pickle=False) as file:
                    self._vectors[key] = {name: file[name] for name in self.outputs}
            else:
                self._vectors[key] = self._encoded(list(texts), query, precision)
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with atomic_write(path, "wb") as file:
                        np.savez(file, **self._vectors[key])
        return self._vectors[key]

    def _encoded(self, texts: list[str], query: bool, precision: str) -> Vectors:
        encode = self.model.encode_query if query else self.model.encode_document
        with autocast(self.model.device.type, precision):
            found = encode(texts, outputs=self.outputs, batch_size=64)
        found["embedding"] = found["embedding"] / np.linalg.norm(found["embedding"], axis=1, keepdims=True)
        return found


def fitted_codes(once: Once, documents: list[str], asked: Vectors, found: Vectors) -> Code:
    """Fits codes to the documents as `spectra codes fit` does, saves and loads the model, and returns the codes.

    Checks that `encode` of the loaded model gives the same bits for the first documents.
    """
    entity = bool(once.model.spectra.config.entity)
    parts = excerpts(documents, random.Random(0))
    stand_ins = hashed_pair(once.vectors(parts, query=True), entity=entity) if len(parts) >= 4 else None
    model = copy.deepcopy(once.model)
    fit_codes(model.spectra.bridge, hashed_pair(found, entity=entity), stand_ins)
    model.spectra.config.codes_fitted = True
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = load(folder)
    loaded.max_seq_length = min(loaded.max_seq_length or LENGTH, LENGTH)
    with torch.inference_mode():
        query, document = (
            loaded.spectra.bridge(hashed_pair(side, entity=entity)[0]).numpy() for side in (asked, found)
        )
    with autocast(loaded.device.type, resolve_precision("auto")):
        packed = loaded.encode_document(documents[:64], outputs=["fast"])["fast"]
    same = (unpack_signs(packed) == np.where(document[:64] > 0, 1, -1)).mean()
    assert same > 0.99, f"only {same:.3f} of the bits are those of `encode`"  # rounding depends on the batch
    return query, document
