"""Several datasets in one run: how they are read, held out and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spectra_nsa.config.data_section import DataSection
from spectra_nsa.config.loss_sections import DistillSection
from spectra_nsa.config.recipe import Recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.training.checks import check_data, check_names, live_terms_of, plan_sets, row_counts
from spectra_nsa.training.data.mixing import batches_per_set, epoch_rows, texts_per_row, turns_in_order
from spectra_nsa.training.data.rows import TrainingData, load_training_data

PAIRS = [{"anchor": f"a{n}", "positive": f"p{n}"} for n in range(40)]
TRIPLETS = [
    {"query": f"q{n}", "document": f"d{n}", "negatives": [f"n{n}", f"m{n}"], "ranks": [1, 0]} for n in range(24)
]
SCORED = [{"sentence1": f"s{n}", "sentence2": f"t{n}", "score": n % 5 / 4} for n in range(16)]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """The paths of three sources of different kinds."""
    for name, rows in (("pairs", PAIRS), ("triplets", TRIPLETS), ("scored", SCORED)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {name: str(tmp_path / f"{name}.jsonl") for name in ("pairs", "triplets", "scored")}


def section_of(sources: dict[str, str], more: dict[str, dict[str, Any]] | None = None, **keys: Any) -> DataSection:
    sets = {name: {"train": path, **(more or {}).get(name, {})} for name, path in sources.items()}
    return DataSection.model_validate({"sets": sets, "dev_rows": 8, **keys})


def load(section: DataSection, quarantine: Path | None = None, **distill: Any) -> TrainingData:
    return load_training_data(section, seed=0, quarantine=quarantine, distill=DistillSection(**distill))


def recipe_of(section: DataSection, **values: Any) -> Recipe:
    return Recipe.model_validate({"train": {"batch": 8}, **values, "data": section.model_dump()})


def test_each_dataset_keeps_its_columns_and_the_first_gives_the_dev_rows(sources: dict[str, str]) -> None:
    data = load(section_of(sources, {"triplets": {"negatives": 1}}))
    assert [part.columns for part in data.sets.values()] == [
        ["anchor", "positive"], ["anchor", "positive", "negative"], ["sentence1", "sentence2"],
    ]  # fmt: skip
    assert [len(part.train) for part in data.sets.values()] == [32, 24, 16]
    assert data.dev is not None and len(data.dev) == 8 and data.dev_kind == "pairs"
    assert not set(data.dev["anchor"]) & set(data.train["anchor"])
    assert data.first.dev is data.dev and data.sets["scored"].scored
    assert row_counts(data) == "72 rows (pairs 32, triplets 24, scored 16)"
    assert (data.train.column_names, len(data.train)) == (["anchor", "positive"], 72)
    assert {"q0", "s0"} <= set(data.train["anchor"]) and {"d0", "t0"} <= set(data.train["positive"])


def test_rows_of_the_others_that_share_a_held_out_text_are_left_out(sources: dict[str, str], tmp_path: Path) -> None:
    copy = [{"anchor": row["anchor"].upper(), "positive": f"else {n}"} for n, row in enumerate(PAIRS)]
    (tmp_path / "copy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in copy), encoding="utf-8")
    data = load(
        section_of({"pairs": sources["pairs"], "copy": str(tmp_path / "copy.jsonl")}, {"copy": {"group": "anchor"}})
    )
    assert data.dev is not None and data.left_out == 8 and len(data.sets["copy"].train) == 32
    held_out = {text.upper() for text in data.dev["anchor"]}
    assert not held_out & set(data.sets["copy"].train["anchor"])
    assert data.sets["copy"].groups == list(data.sets["copy"].train["anchor"])


def test_a_dev_source_of_its_own_holds_nothing_out(sources: dict[str, str]) -> None:
    data = load(section_of({"pairs": sources["pairs"]}, dev=sources["scored"]))
    assert len(data.sets["pairs"].train) == 40 and data.dev_kind == "scored" and data.first.dev is data.dev


def test_notes_and_quarantined_rows_name_the_dataset(sources: dict[str, str], tmp_path: Path) -> None:
    with Path(sources["triplets"]).open("a", encoding="utf-8") as file:
        file.write("broken\n")
    data = load(section_of(sources, {"triplets": {"negatives": 1}}), tmp_path / "quarantine")
    assert data.quarantined == 1 and list((tmp_path / "quarantine" / "triplets").iterdir())
    assert all(note.partition(":")[0] in sources for note in data.notes)


def test_errors_name_the_dataset(sources: dict[str, str], tmp_path: Path) -> None:
    gone = section_of({**sources, "more": str(tmp_path / "gone.jsonl")})
    with pytest.raises(SpectraError, match=r"^data.sets.more: .*gone.jsonl does not exist"):
        load(gone)
    with pytest.raises(SpectraError, match=r"^data.sets.more: .*gone.jsonl does not exist"):
        check_names(Recipe(data=gone))
    with pytest.raises(UsageError, match=r"^data.sets.code: unknown language of CoRNStack 'cobol'"):
        check_names(Recipe(data=section_of({"code": "cornstack:cobol"})))
    with pytest.raises(SpectraError, match=r"^data.sets.pairs: data.group: .* no column 'topic'"):
        load(section_of(sources, {"pairs": {"group": "topic"}}))
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    with pytest.raises(SpectraError, match=r"^data.sets.texts: .* holds single texts"):
        load(section_of({**sources, "texts": str(tmp_path / "texts.jsonl")}), teachers=["some/teacher"])


def test_scores_hold_for_the_datasets_that_have_them(sources: dict[str, str]) -> None:
    data = load(section_of(sources, {"triplets": {"negatives": 1}}), scores=["ranks"])
    assert data.sets["pairs"].scores is None and data.sets["triplets"].scores is not None
    recipe = recipe_of(
        section_of(sources), loss={"terms": {"margin_mse": {"weight": 1}}}, distill={"scores": ["ranks"]}
    )
    check_data(recipe, data)
    with pytest.raises(UsageError, match=r"column of data\.sets 'rank'"):
        load(section_of(sources), scores=["rank"])


def test_each_dataset_has_its_terms(sources: dict[str, str]) -> None:
    section = section_of(sources, {"scored": {"terms": ["cosent"]}, "pairs": {"terms": ["semantic", "entity"]}})
    recipe, data = recipe_of(section), load(section)
    check_data(recipe, data)
    plan = plan_sets(recipe, data)
    assert plan["pairs"] == {"rows": 32, "batches": 4, "terms": ["semantic", "entity"]}
    assert plan["scored"]["terms"] == ["cosent"] and "ranking" in plan["triplets"]["terms"]
    assert live_terms_of(recipe, data)[:3] == ["semantic", "cosent", "ranking"]
    assert epoch_rows(recipe, data) == (4 + 3 + 2) * 8
    assert texts_per_row(recipe, data) == (4 * 2 + 3 * 4 + 2 * 2) / 9


@pytest.mark.parametrize(
    ("more", "values", "message"),
    [
        ({"pairs": {"limit": 8}}, {}, r"data.sets.pairs has 6 training rows, which fill no batch of 8"),
        ({"pairs": {"terms": ["cosent"]}}, {}, r"data.sets.pairs: no term of the loss applies to pairs"),
        (
            {"pairs": {"terms": ["semantic", "cosent"]}},
            {},
            r"data.sets.pairs.terms: cosent has nothing .* pairs: it needs",
        ),
        ({"scored": {"terms": ["cosent", "angle"]}}, {}, r"data.sets.scored.terms: angle is off"),
        (
            {"triplets": {"terms": ["semantic", "margin_mse"]}},
            {"loss": {"terms": {"margin_mse": {"weight": 1}}}},
            r"margin_mse has nothing to learn from",
        ),
    ],
)
def test_what_a_dataset_cannot_do_is_refused(
    sources: dict[str, str], more: dict[str, Any], values: dict[str, Any], message: str
) -> None:
    section = section_of(sources, more)
    with pytest.raises(UsageError, match=message):
        check_data(recipe_of(section, **values), load(section))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train": "x.jsonl"}, "train and sets both name training rows"),
        ({"limit": 5}, "limit is for data.train: give it to each dataset, as data.sets.NAME.limit"),
        ({"columns": {"anchor": "a"}}, "columns is for data.train"),
        ({"sets": {"a b": {"train": "x"}}}, "the name 'a b' of a dataset"),
        ({"sets": {"a": {"train": "x", "terms": ["cosen"]}}}, "Did you mean 'cosent'"),
    ],
)
def test_contradictions_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSection.model_validate({"sets": {"a": {"train": "x"}}, **keys})


@pytest.mark.parametrize(
    ("rows", "weights", "mixing", "counts"),
    [
        ([80, 40, 16], [1, 1, 1], "proportional", [10, 5, 2]),
        ([80, 40, 16], [0.5, 2, 0.01], "proportional", [5, 10, 1]),
        ([80, 40, 23], [1, 1, 1], "round_robin", [2, 2, 2]),
        ([80, 40, 16], [3, 1, 1], "round_robin", [6, 2, 2]),
        ([80, 8, 80], [1, 0.1, 1], "round_robin", [10, 1, 10]),
    ],
)
def test_the_batches_of_an_epoch(rows: list[int], weights: list[float], mixing: Any, counts: list[int]) -> None:
    assert batches_per_set(rows, weights, 8, mixing) == counts


def test_turns_are_taken_evenly() -> None:
    assert turns_in_order([2, 2, 2]) == [0, 1, 2, 0, 1, 2]
    assert turns_in_order([4, 1, 2]) == [0, 2, 0, 1, 0, 2, 0]


def test_columns_that_are_neither_text_nor_score_are_refused() -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"anchor": ["a"], "positive": ["b"], "scores": ["0.5"]})
    with pytest.raises(SpectraError, match="a column 'scores', which is neither a text nor the score"):
        TrainingData(train=rows, dev=None, dev_kind=None, quarantined=0)
