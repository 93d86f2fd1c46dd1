"""Index folders with random changes: a result or a `SpectraError`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectra_nsa.core.checksums import MANIFEST
from spectra_nsa.index.collection import Index
from spectra_nsa.index.dense import VectorsPart
from spectra_nsa.index.sparse.bm25 import BM25Part
from spectra_nsa.index.sparse.exchange import read_rows
from spectra_nsa.index.sparse.index import SparseIndex
from spectra_nsa.index.sparse.part import PostingsPart
from tests.fuzz.law import cases, obeys
from tests.fuzz.mutations import changed_bytes, changed_json_file, json_bytes
from tests.index.sparse.conftest import names, random_rows

QUERIES: dict[str, Any] = {"sparse": random_rows(2, 9, active=0.9), "bm25": [["a"], []], "dense": np.ones((2, 3))}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    parts = {"sparse": PostingsPart(width=9), "bm25": BM25Part(), "dense": VectorsPart(width=3)}
    index = Index.create(tmp_path_factory.mktemp("index") / "index", "hybrid", parts)
    rows = {"sparse": random_rows(4, 9), "bm25": [["a", "b"], ["a"], [], ["c"]], "dense": np.eye(4, 3)}
    index.add(names(4), rows, texts=names(4))
    index.delete(["d1"])
    return index


def use(folder: Path) -> None:
    index = Index.load(folder)
    index.verify()


def search(folder: Path) -> None:
    index = Index.load(folder)
    for name, queries in QUERIES.items():
        index.records(index.part(name).search(queries, 3).positions[0])
    index.segments[0].records.rows(["d2", "x"])


@cases(60)
@given(data=st.data())
def test_the_manifest(index: Index, data: st.DataObject) -> None:
    path = index.folder / MANIFEST
    valid = path.read_bytes()
    try:
        path.write_bytes(data.draw(changed_json_file(json.loads(valid))))
        obeys(lambda: search(index.folder))
        obeys(lambda: use(index.folder))
    finally:
        path.write_bytes(valid)


@cases(120)
@given(data=st.data())
def test_the_files(index: Index, data: st.DataObject) -> None:
    """Their sizes in the manifest are right, as if they had been damaged before."""
    manifest = index.folder / MANIFEST
    name = data.draw(st.sampled_from(sorted(index.commit.files)))
    path = index.folder / name
    valid, facts = path.read_bytes(), manifest.read_bytes()
    try:
        changed = data.draw(changed_bytes(valid))
        path.write_bytes(changed)
        document = json.loads(facts)
        document["files"][name]["size"] = len(changed)
        manifest.write_bytes(json_bytes(document))
        obeys(lambda: search(index.folder))
        obeys(lambda: use(index.folder))
    finally:
        path.write_bytes(valid)
        manifest.write_bytes(facts)


@pytest.fixture(scope="module")
def neutral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neutral")
    index = SparseIndex.build(folder / "index", random_rows(4, 9), names(4), texts=names(4), vocabulary=names(9))
    index.export(folder / "neutral")
    return folder / "neutral"


@cases(60)
@given(data=st.data())
def test_the_neutral_form(neutral: Path, data: st.DataObject) -> None:
    path = neutral / data.draw(st.sampled_from(["rows.npz", "vocabulary.json", "records.jsonl"]))
    valid = path.read_bytes()
    try:
        path.write_bytes(data.draw(changed_bytes(valid)))
        obeys(lambda: read_rows(neutral))
    finally:
        path.write_bytes(valid)
