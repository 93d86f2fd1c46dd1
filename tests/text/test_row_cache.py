"""Rows that do not fit in memory: the same table as in memory, cached on disk, and rebuilt if the entry is invalid."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spectra_nsa.core import checksums
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.text import file_set, row_cache, row_store
from spectra_nsa.text.readers import hub
from spectra_nsa.text.rows import TextSet
from spectra_nsa.text.sources import load_source

ROWS = [
    {
        "query": f"q{i}", "document": f"d{i} é\U0001f600", "negatives": [f"n{i}", f"m{i}", f"o{i}"][: 1 + i % 3],
        "number": i, "mixed": i if i % 2 else i / 2, "named": None if i % 3 else f"x{i}", "odd": str(i) if i % 5 else i,
        "yes": i % 2 == 0, "huge": 10**30 + i, "list": [i], "half": "\ud800",
    }
    for i in range(300)
]  # fmt: skip
BAD = {"query": " ", "document": "d", "negatives": ["n"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "FRESH", 0.0)
    return tmp_path / "cache" / "spectra-nsa" / "rows"


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "IN_MEMORY", 2_000)
    monkeypatch.setattr(row_store, "_BATCH_ROWS", 7)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Returns a list of the files that are read from disk."""
    seen: list[Path] = []
    read = file_set.read_records

    def counted(path: Path) -> Iterator[Any]:
        seen.append(path)
        yield from read(path)

    monkeypatch.setattr(file_set, "read_records", counted)
    return seen


def facts(found: TextSet) -> dict[str, Any]:
    return {
        "rows": found.dataset.to_list(), "features": dict(found.dataset.features), "kind": found.kind,
        "notes": found.notes, "quarantined": found.quarantined, "problems": found.problems, "roles": found.roles,
        "columns": found.dataset.column_names,
    }  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        [*ROWS[:150], BAD, *ROWS[150:]],
        [{"sentence1": f"a{i}", "sentence2": f"b{i}", "score": i / 100} for i in range(300)],
        [{"sentence1": f"a{i}", "sentence2": f"b{i}", "score": i / 150 - 1} for i in range(300)],
        [{"anchor": f"a{i}" * 20, "positive": f"b{i}"} for i in range(300)],
    ],
    ids=["triplets", "scores", "cosines", "pairs"],
)
def test_the_same_table_in_memory_from_disk_and_from_the_cache(write, cache, monkeypatch, readings, rows):
    path = write("a.jsonl", rows)
    expected = load_source(path)
    assert expected.digest is None and not cache.exists()
    monkeypatch.setattr(row_store, "IN_MEMORY", 2_000)
    monkeypatch.setattr(row_store, "_BATCH_ROWS", 7)
    first, again = load_source(path), load_source(path)
    assert facts(first) == facts(expected) == facts(again)
    assert first.dataset.cache_files and first.digest == again.digest is not None
    assert readings == [path, path]  # not a third time
    assert [item.name for item in cache.iterdir()] == [Path(again.dataset.cache_files[0]["filename"]).parent.name]


def test_refused_rows_are_reported_again(write, tmp_path, on_disk, readings):
    path = write("a.jsonl", [*ROWS, *[BAD] * 20])
    first = load_source(path, quarantine=tmp_path / "one")
    again = load_source(path, quarantine=tmp_path / "two")
    assert len(readings) == 1 and (again.quarantined, again.problems) == (20, first.problems)
    written = (tmp_path / "one" / first.quarantine_file.name).read_bytes()
    assert again.quarantine_file.read_bytes() == written and written.count(b"\n") == 20
    assert load_source(path).quarantine_file is None


def test_changed_files_are_read_again_and_touched_ones_are_not(write, on_disk, readings):
    path = write("a.jsonl", ROWS)
    load_source(path)
    os.utime(path, ns=(1, 1))
    assert len(load_source(path).dataset) == 300 and len(readings) == 1
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"q7", b"Q7"))  # same size; the next line restores the time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_source(path).dataset[7]["anchor"] == "Q7" and len(readings) == 2
    assert load_source(path, limit=200).dataset.num_rows == 200
    assert load_source(path, columns={"anchor": "document", "positive": "query"}).dataset[0]["positive"] == "q0"
    assert len(readings) == 4


def test_a_source_that_changes_while_it_is_read_is_not_reused(write, on_disk, monkeypatch, readings):
    path = write("a.jsonl", ROWS)
    real = row_cache.describe

    def describe_and_change(found: Path, **options: Any) -> dict[str, Any]:
        if found == path:
            with path.open("a") as file:
                file.write(json.dumps(ROWS[0]) + "\n")
        return real(found, **options)

    monkeypatch.setattr(row_cache, "describe", describe_and_change)
    load_source(path)
    monkeypatch.setattr(row_cache, "describe", real)
    assert len(load_source(path).dataset) > 300 and len(readings) == 2


@pytest.mark.parametrize("name", ["rows.arrow", "refused.jsonl", "entry.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_entry_is_rebuilt(write, cache, on_disk, readings, name, damage):
    path = write("a.jsonl", [BAD, *ROWS])
    expected = facts(load_source(path))
    (entry,) = cache.iterdir()
    content = (entry / name).read_bytes()
    (entry / name).unlink()
    if damage != "gone":
        (entry / name).write_bytes(content[: len(content) // 2] if damage == "cut" else b"[1]")
    assert facts(load_source(path)) == expected and len(readings) == 2
    assert (entry / name).read_bytes().count(b"") == len(content) + 1
    load_source(path)
    assert len(readings) == 2


def test_a_failed_read_leaves_nothing_in_the_cache(write, cache, on_disk):
    rows = [{"sentence1": f"a{i}", "sentence2": f"b{i}", "score": -i} for i in range(300)]
    with pytest.raises(SpectraError, match="Rescale"):
        load_source(write("a.jsonl", rows))
    assert not list(cache.iterdir())


def test_the_error_of_a_full_disk_names_the_remedy(write, monkeypatch, on_disk):
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.OSFile", full)
    with pytest.raises(SpectraError, match="XDG_CACHE_HOME"):
        load_source(write("a.jsonl", ROWS))


def test_rows_outlive_their_entry(write, cache, on_disk, monkeypatch):
    monkeypatch.setattr(row_cache.ROWS, "keep", 2)
    found = [load_source(write(f"{i}.jsonl", [*ROWS, *ROWS[: i + 1]])) for i in range(4)]
    assert len(list(cache.iterdir())) == 2
    assert [rows.dataset[300]["anchor"] for rows in found] == ["q0"] * 4


def test_hub_datasets_are_cached_by_their_files(tmp_path, monkeypatch, on_disk, readings):
    import datasets

    stored = datasets.Dataset.from_list([{"text": f"text {i}" * 9} for i in range(300)])
    stored.save_to_disk(str(tmp_path / "hub"))
    calls = []

    def load(*arguments: Any, **options: Any) -> Any:
        calls.append(options)
        return datasets.load_from_disk(str(tmp_path / "hub"))

    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *a: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", load)
    read = []
    records = hub._records

    def counted(rows: Any, name: Any) -> Iterator[Any]:
        read.append(name)
        yield from records(rows, name)

    monkeypatch.setattr(hub, "_records", counted)
    first, again = load_source("org/name"), load_source("org/name")
    assert facts(first) == facts(again) and len(calls) == 2 and len(read) == 1
