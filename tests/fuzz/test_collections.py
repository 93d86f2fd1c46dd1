"""Retrieval collections in the layouts of the Hub, CodeSearchNet's and CoSQA's files, damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from spectra_nsa.evaluation.tasks import tasks_from
from tests.fuzz.law import cases, obeys
from tests.fuzz.mutations import changed_json_file, changed_lines, json_bytes

CORPUS = [{"_id": "d0", "title": "a", "text": "open file"}, {"_id": 7, "text": "read → text"}]
QUERIES = [{"_id": "q0", "text": "open"}, {"_id": "q1", "text": "read"}]
QRELS = [
    {"query-id": "q0", "corpus-id": "d0", "score": 1},
    {"query-id": "q1", "corpus-id": ["7", "d0"]},
    {"query-id": "q0", "corpus-id": 7, "score": 0.0},
]
FUNCTIONS = [{"docstring_tokens": ["open", at], "code_tokens": ["def", str(at)], "url": f"u{at}"} for at in range(3)]
COSQA = [{"doc": "open a file", "retrieval_idx": 0}, {"doc": "read", "retrieval_idx": 1}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("collections")


def _write(folder: Path, **files: bytes) -> Path:
    lines = {"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS}
    contents = {f"{name}/test.jsonl": b"\n".join(map(json_bytes, rows)) for name, rows in lines.items()} | files
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@cases(15, share=0.5)
@given(corpus=changed_lines(CORPUS), queries=changed_lines(QUERIES), qrels=changed_lines(QRELS))
def test_hub_folders(folder: Path, corpus: bytes, queries: bytes, qrels: bytes) -> None:
    for name, data in (("corpus", corpus), ("queries", queries), ("qrels", qrels)):
        path = _write(folder / name, **{f"{name}/test.jsonl": data})
        obeys(lambda path=path: tasks_from([f"cosqa-distinct={path}"]))


@cases(15, share=0.5)
@given(data=changed_lines(FUNCTIONS))
def test_code_search_net(folder: Path, data: bytes) -> None:
    whole = b"\n".join(map(json_bytes, FUNCTIONS))
    path = _write(folder / "csn", **{"go/test.jsonl": data, "go/codebase.jsonl": whole})
    obeys(lambda: tasks_from([f"csn-graphcodebert={path}"]))
    obeys(lambda: tasks_from([f"csn-original-999={path / 'go'}"]))


@cases(15, share=0.5)
@given(rows=changed_json_file(COSQA), codes=changed_json_file({"open(file)": 0, "read(file)": 1}))
def test_cosqa(folder: Path, rows: bytes, codes: bytes) -> None:
    for name, data in (("rows", (rows, b'{"open(file)": 0}')), ("codes", (json.dumps(COSQA).encode(), codes))):
        contents = {"cosqa-retrieval-test-500.json": data[0], "code_idx_map.txt": data[1]}
        path = _write(folder / name, **contents)
        obeys(lambda path=path: tasks_from([f"cosqa-distinct={path}"]))
