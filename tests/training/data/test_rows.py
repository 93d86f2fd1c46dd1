"""Training and dev rows are kept apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spectra_nsa.config.sections import DataSection
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.training.data.rows import TrainingData, load_training_data


@pytest.mark.parametrize("chunk", [7, 10_000])
def test_no_text_of_the_dev_rows_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("spectra_nsa.training.data.dev_rows.ROWS_PER_CHUNK", chunk)
    rows = [{"anchor": f"a{i // 2}", "positive": f"p{i}"} for i in range(60)]  # each anchor stands twice
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data = load_training_data(DataSection(train=str(path), dev_rows=10), seed=3, quarantine=None)
    assert data.dev is not None and len(data.dev) == 10 and data.dev_kind == "pairs"
    assert not set(data.train["anchor"]) & set(data.dev["anchor"])
    assert not set(data.train["positive"]) & set(data.dev["positive"])
    assert data.train.column_names == ["anchor", "positive"]
    held_out = set(data.dev["anchor"])
    assert set(data.train["positive"]) == {row["positive"] for row in rows if row["anchor"] not in held_out}


def test_spellings_of_held_out_texts_are_left_out(tmp_path: Path) -> None:
    spelling = ("Caf\u00e9 {}", "cafe\u0301  {}", "CAF\u00c9\t{} ")
    rows = [{"anchor": spelling[i % 3].format(i // 3), "positive": f"p{i}"} for i in range(60)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = load_training_data(DataSection(train=str(tmp_path / "d.jsonl"), dev_rows=5), seed=0, quarantine=None)
    assert data.dev is not None
    number = {anchor.split()[-1] for anchor in data.dev["anchor"]}
    assert not number & {anchor.split()[-1] for anchor in data.train["anchor"]}
    assert data.left_out == 3 * len(number) - 5 and len(data.train) == 60 - 3 * len(number)


def test_scored_pairs_can_be_trained_on(tmp_path: Path) -> None:
    rows = [{"sentence1": f"a{i // 2}", "sentence2": f"b{i}", "score": i % 6} for i in range(40)]
    (tmp_path / "s.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = load_training_data(DataSection(train=str(tmp_path / "s.jsonl"), dev_rows=10), seed=3, quarantine=None)
    assert data.scored and data.columns == ["sentence1", "sentence2"] and data.dev_kind == "scored"
    assert data.train.column_names == ["sentence1", "sentence2", "score"] and max(data.train["score"]) == 1
    assert data.dev is not None and len(data.dev) == 10
    held_out = {text for name in data.columns for text in data.dev[name]}
    assert not held_out & {text for name in data.columns for text in data.train[name]}


def test_scored_pairs_can_watch_a_run(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"anchor": f"a{i}", "positive": f"p{i}"}) for i in range(9)))
    (tmp_path / "s.jsonl").write_text(
        "\n".join(json.dumps({"sentence1": f"a{i}", "sentence2": f"b{i}", "score": i / 9}) for i in range(9))
    )
    section = DataSection(train=str(tmp_path / "d.jsonl"), dev=str(tmp_path / "s.jsonl"), dev_rows=5)
    data = load_training_data(section, seed=0, quarantine=None)
    assert data.dev_kind == "scored" and len(data.train) == 9
    assert data.dev is not None and len(data.dev) == pytest.approx(5)


def test_data_columns_apply_to_the_dev_set(tmp_path: Path) -> None:
    for name, rows in (("train", 8), ("dev", 3)):
        lines = [json.dumps({"headline": f"{name} h{i}", "story": f"{name} s{i}"}) for i in range(rows)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    section = DataSection(
        train=str(tmp_path / "train.jsonl"), dev=str(tmp_path / "dev.jsonl"),
        columns={"anchor": "headline", "positive": "story"},
    )  # fmt: skip
    data = load_training_data(section, seed=3, quarantine=None)
    assert data.dev is not None and list(data.dev["anchor"]) == ["dev h0", "dev h1", "dev h2"]


def load(folder: Path, rows: list[dict[str, object]], **keys: object) -> TrainingData:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_training_data(DataSection(train=str(folder / "rows.jsonl"), **keys), seed=0, quarantine=None)  # type: ignore[arg-type]


def scored(count: int, score: float | None = None) -> list[dict[str, object]]:
    values = [i / count if score is None else score for i in range(count)]
    return [{"sentence1": f"a{i}", "sentence2": f"b{i}", "score": value} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (scored(7), "1 dev row would be too few"),
        (scored(40, 0.5), "all their scores are equal"),
        ([{"anchor": f"a{i}", "positive": f"p{i}"} for i in range(5)], "at least two different ones"),
        ([{"anchor": f"a{i}", "positive": "p"} for i in range(40)], "at least two different ones"),
    ],
)
def test_no_row_is_held_out_for_a_metric_that_says_nothing(
    tmp_path: Path, rows: list[dict[str, object]], reason: str
) -> None:
    data = load(tmp_path, rows)
    assert data.dev is None and data.dev_kind is None and len(data.train) == len(rows)
    assert data.notes == (f"no rows are held out, because {data.notes[0].split('because ')[1]}",)
    assert reason in data.notes[0]


def test_a_dev_set_with_equal_scores_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, scored(9, 0.3))))
    with pytest.raises(SpectraError, match=r"data\.dev: .* no dev metric, because all their scores are equal"):
        load(tmp_path, scored(30), dev=str(tmp_path / "dev.jsonl"))


def test_held_out_rows_that_take_all_training_rows_with_them_are_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"anchor": f"a{i}", "positive": f"p{i % 2}"} for i in range(30)]
    with pytest.raises(SpectraError, match=r"0 training rows left: .* set data\.dev_rows=0"):
        load(tmp_path, rows)
