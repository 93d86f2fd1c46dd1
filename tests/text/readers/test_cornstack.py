"""CoRNStack in every shape in which it circulates, from small stand-ins with the same columns."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pytest

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.readers import cornstack, hub
from spectra_nsa.text.sources import check_source, load_source

Row = dict[str, Any]


def nomic_row(number: int, language: str = "python", rank: int | str = 0) -> Row:
    """Returns a row as nomic-ai/cornstack-LANG-v1 has them; scores and ranks are strings there."""
    return {
        "query": f"{language} query {number}",
        "document": f"{language} document {number}",
        "metadata": {"objective": {"self": [], "paired": [], "triplet": [["query", "document", "negatives"]]}},
        "negatives": [f"{language} negative {number} {other}" for other in range(10)],
        "negative_scores": ["0.5"] * 10,
        "document_score": "0" if int(rank) < 0 else "0.8",
        "document_rank": str(rank),
    }


def write_shard(path: Path, rows: list[Row]) -> Path:
    """Writes compressed JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


Publish = Callable[[str, list[Row]], None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Returns a function that puts rows under the name of a Hub dataset; others are missing there."""
    shards: dict[str, str] = {}
    real = datasets.load_dataset

    def load_dataset(path: str, name: str | None, *, split: str, streaming: bool) -> Any:
        if path not in shards:
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub")
        assert streaming
        return real("json", data_files={"train": shards[path]}, split=split, streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    def publish(name: str, rows: list[Row]) -> None:
        shards[name] = str(write_shard(tmp_path / "hub" / name / "shard-00000.jsonl.gz", rows))

    return publish


def test_a_language_is_streamed_and_unranked_rows_are_dropped_and_counted(publish: Publish) -> None:
    publish("nomic-ai/cornstack-python-v1", [nomic_row(n, rank=-1 if n == 1 else 0) for n in range(4)])
    source = load_source("cornstack:python", negatives=2)
    assert (source.name, source.kind, source.roles) == (
        "cornstack-python", "triplets", ("anchor", "positive", "negative", "negative_2"),
    )  # fmt: skip
    assert list(source.dataset["anchor"]) == [f"python query {n}" for n in (0, 2, 3)]
    assert source.dataset["negative_2"][0] == "python negative 0 1"
    assert "1 row with document_rank -1 dropped" in source.notes
    assert "language" not in source.dataset.column_names


def test_several_languages_share_the_limit(publish: Publish) -> None:
    publish("nomic-ai/cornstack-go-v1", [nomic_row(n, "go") for n in range(2)])
    publish("nomic-ai/cornstack-ruby-v1", [nomic_row(n, "ruby") for n in range(5)])
    source = load_source("cornstack:go, ruby", negatives=0, limit=6)
    assert source.kind == "pairs"
    assert list(source.dataset["language"]) == ["go", "ruby", "go", "ruby", "ruby", "ruby"]
    assert "negatives" not in source.dataset.column_names


def test_the_limit_stops_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def endless(*args: object, **options: object) -> Any:
        assert options == {"stream": True}

        def rows() -> Any:
            while True:
                read.append(1)
                yield cornstack.Record(len(read), nomic_row(len(read)), "hub")

        return rows(), [], {}, "train"

    monkeypatch.setattr(hub, "hub_records", endless)
    assert len(load_source("cornstack:java", limit=150).dataset) == 150
    assert len(read) <= 151


def test_a_missing_language_is_named_with_the_source_without_it(publish: Publish) -> None:
    publish("nomic-ai/cornstack-python-v1", [nomic_row(n) for n in range(2)])
    with pytest.raises(
        SpectraError, match=r"CoRNStack's rust cannot be opened. CoRNStack is described with it, but no "
    ) as e:
        load_source("cornstack:python,rust")
    assert "cornstack-rust-v1" in str(e.value)
    assert str(e.value).endswith("To read the others without it: cornstack:python")
    with pytest.raises(SpectraError, match="CoRNStack's go cannot be opened") as e:
        load_source("cornstack:go")
    assert str(e.value).endswith("Leave it out, or name a folder with it.")


def test_only_its_languages_are_accepted() -> None:
    check_source("cornstack:typescript,rust,cpp")
    with pytest.raises(UsageError, match=r"'pyton'.*python"):
        check_source("cornstack:pyton")
    with pytest.raises(UsageError, match="names no language"):
        check_source("cornstack:,")
    with pytest.raises(SpectraError, match="cornstack:LANGUAGE"):
        check_source("cornstack")
    with pytest.raises(UsageError, match="only the split train"):
        load_source("cornstack:python", split="test")


def test_a_folder_of_shards_is_read_like_the_hub(tmp_path: Path) -> None:
    for shard in range(2):
        rows = [nomic_row(10 * shard + n, rank=-(n % 2)) for n in range(4)]
        write_shard(tmp_path / f"shard-{shard:05}.jsonl.gz", rows)
    source = load_source(tmp_path, negatives=1)
    assert list(source.dataset["anchor"]) == [f"python query {n}" for n in (0, 2, 10, 12)]
    assert source.text_columns == ("anchor", "positive", "negative")
    assert "4 rows with document_rank -1 dropped" in source.notes
    assert len(load_source(tmp_path, limit=3).roles) == 2 + 8


def test_a_source_of_unranked_rows_only_is_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "shard-00000.jsonl.gz", [nomic_row(n, rank=-1) for n in range(3)])
    with pytest.raises(SpectraError, match="3 rows, and document_rank is -1 in all of them"):
        load_source(path)


def test_a_rank_that_is_no_number_keeps_the_row(tmp_path: Path) -> None:
    rows = [nomic_row(0) | {"document_rank": None}, nomic_row(1) | {"document_rank": "first"}]
    assert len(load_source(write_shard(tmp_path / "rows.jsonl.gz", rows)).dataset) == 2


def test_negatives_in_columns_as_in_lightonai_cornstack(tmp_path: Path) -> None:
    names = [f"negative_{number}" for number in range(26)]
    rows = [{"query": f"q{n}", "document": f"d{n}"} | {name: f"{name} of {n}" for name in names} for n in range(3)]
    write_shard(tmp_path / "python" / "train.jsonl.gz", rows)
    card = "---\nconfigs:\n- config_name: python\n  data_files:\n  - split: train\n    path: python/*.jsonl.gz\n---\n"
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    source = load_source(f"{tmp_path}:python")
    assert source.roles == ("anchor", "positive", "negative", *(f"negative_{n}" for n in range(2, 9)))
    assert source.dataset.column_names == list(source.roles)  # the others are no further roles
    assert source.dataset["negative_8"][2] == "negative_7 of 2"
    assert "the first 8 of 26 columns of negatives used" in source.notes
    one = load_source(f"{tmp_path}:python", negatives=1, limit=2)
    assert one.dataset.column_names == ["anchor", "positive", "negative"]
    none = load_source(f"{tmp_path}:python", negatives=0)
    assert (none.kind, none.dataset.column_names) == ("pairs", ["anchor", "positive"])


@pytest.mark.parametrize(("extra", "kind"), [({}, "pairs"), ({"negs": ["n1", "n2"]}, "triplets")])
def test_samples_with_pos_and_negs_as_in_hotchpotch_cornstack_samples(tmp_path: Path, extra: Row, kind: str) -> None:
    rows = [{"query": f"q{n}", "pos": f"d{n}"} | extra for n in range(3)]
    source = load_source(write_shard(tmp_path / "train.jsonl.gz", rows))
    assert (source.kind, source.dataset["positive"][1]) == (kind, "d1")


def test_records_arrive_in_turn_until_each_language_has_ended() -> None:
    streams = {name: iter([cornstack.Record(1, {"n": n}, name) for n in range(2)]) for name in ("a", "b")}
    merged = list(islice(cornstack._in_turn(streams), 9))
    assert [(record.file, record.values["n"]) for record in merged] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_failed_attempts_to_connect_are_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.get_dataset_split_names", fails)
    monkeypatch.setattr("datasets.load_dataset", fails)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    with pytest.raises(SpectraError, match="could not be reached"):
        list(cornstack.cornstack_records(["ruby"]))
    assert "Retrying" not in caplog.text
