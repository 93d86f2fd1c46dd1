"""The cache: a damaged entry counts as absent, whatever is in it."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given

from spectra_nsa.core import cache as module
from spectra_nsa.core.cache import Cache, cache_file, remembered_sha256
from spectra_nsa.core.checksums import describe
from spectra_nsa.index.blocks import Blocks
from spectra_nsa.text.readers.python_env import _read_cache
from spectra_nsa.text.row_cache import RowCacheEntry
from spectra_nsa.training.data.token_cache import read_tokens
from spectra_nsa.workflows.search import last_model
from tests.fuzz.law import cases, obeys
from tests.fuzz.mutations import changed_bytes, changed_json_file, changed_lines, json_bytes

KIND = Cache("fuzz", keep=4)
PROBLEM = {"file": "a", "line": 1, "column": None, "reason": "bad", "raw": "x"}
SOURCES = [{"stamp": [1, 2, 3, 4], "sha256": "0"}]
FACTS = {"rows": 2, "columns": ["text"], "sources": SOURCES, "kind": "texts", "notes": []}


@pytest.fixture(autouse=True, scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(module, "_REMEMBERED", 1)
        patch.setattr("spectra_nsa.core.checksums.FRESH", 0.0)
        yield folder


def _arrow(**columns: list[object]) -> bytes:
    file = io.BytesIO()
    table = pa.table(columns)
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return file.getvalue()


def _entry_json(name: str, data: bytes, facts: dict[str, object]) -> dict[str, object]:
    import hashlib

    digest = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {"facts": facts, "files": {name: digest}}


TOKENS = _arrow(anchor=[[1, 2], [3]])


@cases(40, share=1.5)
@given(data=changed_json_file(_entry_json("file", b"content", {"rows": 2, "shape": [1, 2]})))
@example(data=b"null")
@example(data=b'{"facts": [], "files": {}}')
def test_the_facts_of_an_entry(data: bytes) -> None:
    entry = KIND.entry(name="facts")
    entry.folder.mkdir(parents=True, exist_ok=True)
    (entry.folder / "file").write_bytes(b"content")
    (entry.folder / "entry.json").write_bytes(data)
    facts = entry.read(rows=2)
    assert facts is None or facts["rows"] == 2
    facts = entry.read()
    assert facts is None or isinstance(facts, dict)
    entry.amend({"rows": 3})


@cases(30)
@given(data=changed_bytes(TOKENS))
def test_the_tokens_of_an_entry(data: bytes) -> None:
    """The checksum is right, as if the file had been damaged before it was taken."""
    entry = KIND.entry(name="tokens")
    entry.folder.mkdir(parents=True, exist_ok=True)
    (entry.folder / "tokens.arrow").write_bytes(data)
    (entry.folder / "entry.json").write_bytes(json_bytes(_entry_json("tokens.arrow", data, {"rows": 2})))
    read_tokens(entry)


def _row_entry(folder: Path) -> RowCacheEntry:
    source = folder / "source.txt"
    source.write_text("a\n")
    return RowCacheEntry(["fuzz"], [source])


@cases(30, share=0.7)
@given(facts=changed_json_file(FACTS), rows=changed_bytes(_arrow(text=["a", "b"])), refused=changed_lines([PROBLEM]))
def test_the_rows_of_an_entry(root: Path, facts: bytes, rows: bytes, refused: bytes) -> None:
    from spectra_nsa.text.quarantine import Quarantine

    with _row_entry(root) as entry:
        folder = entry.entry.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rows.arrow").write_bytes(rows)
        (folder / "refused.jsonl").write_bytes(refused)
        try:
            stored = json.loads(facts)
        except (ValueError, RecursionError):
            stored = FACTS
        if isinstance(stored, dict) and isinstance(stored.get("sources"), list) and stored["sources"]:
            stored["sources"][0] = {"stamp": None, "sha256": describe(root / "source.txt")["sha256"]}
        (folder / "entry.json").write_bytes(json_bytes({"facts": stored, "files": {}}))
        with Quarantine("source", None) as quarantine:
            entry.load(quarantine)


@cases(30)
@given(data=changed_json_file({"/tmp/x": [[1, 2, 3, 4], "0"], "/tmp/y": [[1, 2, 3, 4], "1"]}))
@example(data=b'{"/tmp/x": null}')
def test_the_remembered_checksums(root: Path, data: bytes) -> None:
    path = root / "weights"
    path.write_bytes(b"weights")
    cache_file("checksums.json").parent.mkdir(parents=True, exist_ok=True)
    cache_file("checksums.json").write_bytes(data.replace(b"/tmp/x", str(path).encode()))
    assert remembered_sha256(path) == describe(path)["sha256"]


@cases(30)
@given(data=changed_json_file({"model": "/tmp"}))
@example(data=json_bytes({"model": "x" * 3_000}))
@example(data=b"[1]")
def test_the_last_model(data: bytes) -> None:
    cache_file("last.json").parent.mkdir(parents=True, exist_ok=True)
    cache_file("last.json").write_bytes(data)
    obeys(last_model)


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, scores=np.ones((2, 3), np.float32), index=np.arange(6))
    return file.getvalue()


@cases(30)
@given(data=changed_bytes(_npz()))
def test_a_block_of_mining(data: bytes) -> None:
    blocks = Blocks(KIND.entry(name="blocks"))
    blocks.folder.mkdir(parents=True, exist_ok=True)
    (blocks.folder / "000000.npz").write_bytes(data)
    obeys(lambda: blocks.get(0))


HEAD = {"rows": 2, "problems": [PROBLEM]}
FUNCTION = ["describes it", "def f():", "package", "package.f", "f.py", 3]


@cases(30)
@given(data=changed_lines([HEAD, FUNCTION, FUNCTION]))
@example(data=b"[" * 5_000)
def test_the_functions_of_packages(root: Path, data: bytes) -> None:
    path = root / "python.jsonl.gz"
    path.write_bytes(gzip.compress(data, compresslevel=1))
    obeys(lambda: _read_cache(path))


@cases(30)
@given(data=changed_bytes(gzip.compress(b"".join(json_bytes(row) + b"\n" for row in (HEAD, FUNCTION, FUNCTION)))))
def test_the_compressed_functions_of_packages(root: Path, data: bytes) -> None:
    path = root / "python.jsonl.gz"
    path.write_bytes(data)
    obeys(lambda: _read_cache(path))
