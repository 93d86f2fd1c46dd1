"""Sources of texts: files of every format, plain, compressed and damaged."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given

from spectra_nsa.text.beir import load_beir
from spectra_nsa.text.corpus import Corpus
from spectra_nsa.text.preview import preview
from spectra_nsa.text.sources import load_source
from tests.fuzz.law import cases, obeys
from tests.fuzz.mutations import changed_bytes, changed_json, changed_lines, json_bytes

PAIRS = [
    {"anchor": "open a file", "positive": "use open → ok", "negative": ["close", "read"], "id": 1, "tags": [0.5, 1]},
    {
        "anchor": "naïve text",
        "positive": ["日本語", {"title": "a", "text": "b"}],
        "negative": "x",
        "id": 2.5,
        "tags": [],
    },
    {"anchor": "a third", "positive": "the last", "negative": ["one"], "id": None, "tags": None},
]
SCORED = [{"sentence1": "a b", "sentence2": "a c", "label": 0.5}, {"sentence1": "x", "sentence2": "y", "label": 1}]
CORNSTACK = [
    {
        "query": f"sum {n}",
        "document": f"def f{n}(): ...",
        "metadata": {"objective": {"triplet": [["query", "document", "negatives"]]}},
        "negatives": [f"def g{n}(): ...", f"def h{n}(): ..."],
        "negative_scores": ["0.5", "0.4"],
        "document_score": "0.9",
        "document_rank": rank,
    }
    for n, rank in enumerate(("0", "-1", 1))
]
CSV = b'question,answer,,\n"how, to",use it,1,\nwhat,"say ""yes""\nnow",2,\nwhy,because,3,\n'
TSV = b'sentence1\tsentence2\tscore\na b\ta c\t4.5\nx\t"y\t0\nz\tz\t5\n'
TEXT = "one line\n\nanother líne\r\nlast".encode()


def _parquet() -> bytes:
    file = io.BytesIO()
    rows = [row | {"positive": str(row["positive"]), "negative": [str(row["negative"])]} for row in PAIRS]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def _read(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.write_bytes(data)
    texts = obeys(lambda: load_source(path, quarantine=folder / "quarantine"))
    if texts is not None:
        obeys(lambda: preview(texts, rows=2, against=None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@cases(40, share=1.5)
@given(data=changed_lines(PAIRS))
@example(data=json_bytes(PAIRS[0] | {"\ud800": 1, "\0": 2}))
def test_json_lines(folder: Path, data: bytes) -> None:
    _read(folder, "pairs.jsonl", data)


@cases(20)
@given(data=changed_lines(SCORED))
def test_json_lines_of_scores(folder: Path, data: bytes) -> None:
    _read(folder, "scored.jsonl", data)


@cases(20)
@given(data=changed_lines(CORNSTACK))
def test_json_lines_of_cornstack(folder: Path, data: bytes) -> None:
    _read(folder, "shard-00000.jsonl", data)


@cases(30)
@given(value=changed_json(PAIRS))
def test_json_array(folder: Path, value: object) -> None:
    _read(folder, "pairs.json", json_bytes(value))


@cases(20)
@given(data=changed_bytes(json_bytes(SCORED)))
def test_json_array_of_damaged_bytes(folder: Path, data: bytes) -> None:
    _read(folder, "pairs.json", data)


@cases(40)
@given(data=changed_bytes(CSV))
def test_csv(folder: Path, data: bytes) -> None:
    _read(folder, "pairs.csv", data)


@cases(40)
@given(data=changed_bytes(TSV))
@example(data=b"\x1c\t\x1c\nx\ty\n")
def test_tsv(folder: Path, data: bytes) -> None:
    _read(folder, "scored.tsv", data)


@cases(20, share=0.5)
@given(data=changed_bytes(TEXT))
def test_plain_text(folder: Path, data: bytes) -> None:
    path = folder / "lines.txt"
    path.write_bytes(data)
    obeys(lambda: list(Corpus([path])))


@cases(40)
@given(data=changed_bytes(gzip.compress(CSV, mtime=0)))
def test_gzip(folder: Path, data: bytes) -> None:
    _read(folder, "pairs.csv.gz", data)


@cases(40)
@given(data=changed_bytes(zstandard.ZstdCompressor().compress(TEXT * 50)))
def test_zstd(folder: Path, data: bytes) -> None:
    _read(folder, "lines.txt.zst", data)


@cases(40)
@given(data=changed_bytes(_parquet()))
def test_parquet(folder: Path, data: bytes) -> None:
    _read(folder, "pairs.parquet", data)


CORPUS = [
    {"_id": "d1", "title": "t", "text": "one"},
    {"_id": "d2", "title": None, "text": "two"},
    {"_id": 3, "text": "x"},
]
QUERIES = [{"_id": "q1", "text": "first"}, {"_id": 7.0, "text": "second"}]
QRELS = b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n7.0\t3\t2\n"


def _write_beir(folder: Path, **files: bytes) -> Path:
    corpus, queries = (b"\n".join(map(json_bytes, rows)) for rows in (CORPUS, QUERIES))
    contents = {"corpus.jsonl": corpus, "queries.jsonl": queries, "qrels/test.tsv": QRELS} | files
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@cases(20, share=0.7)
@given(data=changed_lines(CORPUS))
def test_beir_corpus(folder: Path, data: bytes) -> None:
    path = _write_beir(folder / "beir", **{"corpus.jsonl": data})
    obeys(lambda: load_beir(path))


@cases(20, share=0.7)
@given(data=changed_lines(QUERIES))
def test_beir_queries(folder: Path, data: bytes) -> None:
    path = _write_beir(folder / "beir", **{"queries.jsonl": data})
    obeys(lambda: load_beir(path))


@cases(20, share=0.7)
@given(data=changed_bytes(QRELS))
@example(data=b"q1\td1\t1e999\n")
def test_beir_judgments(folder: Path, data: bytes) -> None:
    path = _write_beir(folder / "beir", **{"qrels/test.tsv": data})
    obeys(lambda: load_beir(path))
