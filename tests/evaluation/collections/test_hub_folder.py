from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.evaluation.collections.hub_folder import choose, find_collections, is_collection, load_collection

from .conftest import CORPUS, QRELS, SMALL_QUERIES

Table = Callable[[str, Any], Path]
SHARD = "-00000-of-00001.parquet"


@pytest.mark.parametrize(
    "names",
    [
        (f"c/corpus/corpus{SHARD}", f"c/queries/queries{SHARD}", f"c/default/test{SHARD}"),
        (f"c/corpus/train{SHARD}", f"c/queries/train{SHARD}", f"c/qrels/train{SHARD}"),
        (f"c/data/corpus{SHARD}", f"c/data/queries{SHARD}", f"c/data/test{SHARD}"),
        ("c/corpus.jsonl", "c/queries.jsonl", "c/qrels/test.jsonl"),
        ("c/corpus.jsonl", "c/queries.jsonl", "c/data/test.jsonl"),
    ],
)
def test_layouts_of_one_set(names: tuple[str, str, str], table: Table, tmp_path: Path) -> None:
    for name, rows in zip(names, (CORPUS, SMALL_QUERIES, QRELS), strict=True):
        table(name, rows)
    assert is_collection(tmp_path / "c") and not is_collection(tmp_path)
    for folder in (tmp_path / "c", tmp_path):  # the set itself, and a folder with sets
        (one,) = find_collections(folder)
        data = load_collection(one)
        assert data.name == "c" and data.corpus["d0"] == "apple pie" and data.queries["q1"] == "stone river"
        assert data.qrels == {"q0": {"d0": 1}, "q1": {"d1": 1}} and data.notes == ()


def test_several_sets_in_one_folder(table: Table, tmp_path: Path) -> None:
    """The layout of sentence-transformers/NanoBEIR-en, whose judgments have no score."""
    for name in ("NanoMSMARCO", "NanoSciFact"):
        rows = [{"query-id": row["query-id"], "corpus-id": row["corpus-id"]} for row in QRELS]
        for part, content in (("corpus", CORPUS), ("queries", SMALL_QUERIES), ("qrels", rows)):
            table(f"{part}/{name}{SHARD}", content)
    found = find_collections(tmp_path)
    assert [one.name for one in found] == ["NanoMSMARCO", "NanoSciFact"]
    assert [one.name for one in choose(found, "scifact")] == ["NanoSciFact"]
    assert load_collection(found[0]).qrels["q0"] == {"d0": 1}
    with pytest.raises(UsageError, match="NanoSciFact"):
        choose(found, "scifcat")


def test_splits_and_lists_of_documents(table: Table, tmp_path: Path) -> None:
    table("corpus.jsonl", CORPUS)
    table("queries.jsonl", SMALL_QUERIES)
    table("qrels/train.jsonl", QRELS)
    table("qrels/dev.jsonl", [{"query-id": "q0", "corpus-id": ["d0", "d2"], "score": 2}])
    (one,) = find_collections(tmp_path)
    assert load_collection(one).qrels == {"q0": {"d0": 2, "d2": 2}}
    assert set(load_collection(one, "train").qrels) == {"q0", "q1"}
    with pytest.raises(UsageError, match="split"):
        load_collection(one, "tset")


def test_bad_rows_and_unknown_ids_are_counted(table: Table, tmp_path: Path) -> None:
    table("corpus.jsonl", [*CORPUS, {"_id": None, "text": "x"}, {"_id": "d9", "text": 3}])
    table("queries.jsonl", [*SMALL_QUERIES, {"_id": "q9", "text": ""}])
    table("qrels/test.jsonl", [*QRELS, {"query-id": "q9", "corpus-id": "d0"}, {"query-id": "q0", "corpus-id": "dx"}])
    (one,) = find_collections(tmp_path)
    data = load_collection(one)
    assert data.missing == 2 and data.notes[0].startswith("3 rows left out, such as corpus.jsonl:4: _id missing")
    table("qrels/test.jsonl", [{"query-id": "a", "corpus-id": "b"}])
    with pytest.raises(SpectraError, match="1 judgment with an unknown id"):
        load_collection(one)


def test_a_folder_without_sets_says_what_is_needed(table: Table, tmp_path: Path) -> None:
    table("corpus.jsonl", CORPUS)
    with pytest.raises(SpectraError, match="no retrieval set"):
        find_collections(tmp_path)
