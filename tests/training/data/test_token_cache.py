"""Texts that are tokenised once give the batches of texts that are tokenised by the batch, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.config.sections import DataSection
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.models.warm_start import warm_start
from spectra_nsa.text import row_store
from spectra_nsa.training.data import token_cache as tokens
from spectra_nsa.training.data.rows import TrainingData, load_training_data
from spectra_nsa.training.data.token_cache import token_rows
from spectra_nsa.training.jobs.pairs import build_trainer
from spectra_nsa.training.loop.arguments import sees_every_row
from spectra_nsa.training.loop.plan import RunSetup
from tests.builders import WORDS

PROMPTS = {"query": "query: ", "document": "the document: "}
Collator = SentenceTransformerDataCollator


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(row_store, "IN_MEMORY", 2_000)
    monkeypatch.setattr(row_store, "_BATCH_ROWS", 50)
    monkeypatch.setattr(tokens, "_TEXTS_PER_CHUNK", 30)
    return tmp_path / "cache" / "spectra-nsa" / "tokens"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    names = ("anchor", "positive", "negative", "negative_2")
    rows = []
    for number in range(160):
        lengths = zip(names, generator.integers(1, 70, 4), strict=True)
        rows.append({name: " ".join(generator.choice(WORDS, n)) for name, n in lengths} | {"topic": number % 3})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def data_of(pairs: Path, **options: Any) -> TrainingData:
    return load_training_data(DataSection(train=str(pairs), **options), seed=0, quarantine=None)


def collator_of(model: SpectraSentenceTransformer, **options: Any) -> Collator:
    return Collator(preprocess_fn=model.preprocess, **options)


def assert_same(ours: dict[str, Any], stock: dict[str, Any]) -> None:
    assert list(ours) == list(stock)
    for key, value in stock.items():
        if isinstance(value, torch.Tensor):
            assert ours[key].dtype == value.dtype and torch.equal(ours[key], value), key
        else:
            assert ours[key] == value, key


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("truncation", ["right", "left"])
@pytest.mark.parametrize("length", [None, 9])
@pytest.mark.parametrize("prompts", [False, True])
def test_batches_are_those_of_the_stock_collator(
    make_bert: Callable[..., Path], pairs: Path, monkeypatch: pytest.MonkeyPatch,
    on_disk: bool, padding: str, truncation: str, length: int | None, prompts: bool,
) -> None:  # fmt: skip
    model = warm_start(make_bert(prompts=PROMPTS, include_prompt=False))
    model.tokenizer.padding_side, model.tokenizer.truncation_side = padding, truncation
    if not on_disk:
        monkeypatch.setattr(row_store, "IN_MEMORY", 1 << 30)
    data = data_of(pairs, dev_rows=20)
    assert (data.stored is not None) == on_disk
    columns = data.train.column_names
    by_column = {name: PROMPTS["query" if name == "anchor" else "document"] for name in columns} if prompts else {}
    stock = collator_of(model, prompts=by_column, max_length=length)
    found = token_rows(data, model, stock)
    assert found is not None and len(found[0]) == len(data.train) == 140
    for rows in ([3, 1, 2], list(range(140)), [139]):
        assert_same(found[1](found[0].__getitems__(rows)), stock(data.train.__getitems__(rows)))


def test_scores_stand_beside_the_ids(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"sentence1": f"open {at}", "sentence2": "the file" * (at % 5), "score": at / 160} for at in range(1, 160)]
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["sentence2"]))
    model = warm_start(make_bert())
    data, stock = data_of(path, dev_rows=0), collator_of(model)
    found = token_rows(data, model, stock)
    assert data.stored is not None and found is not None
    batch = found[1](found[0].__getitems__([3, 1, 2]))
    assert_same(batch, stock(data.train.__getitems__([3, 1, 2])))
    assert batch["label"].tolist() == pytest.approx([data.train[at]["score"] for at in (3, 1, 2)])


def test_a_tokenizer_that_does_more_is_left_alone(make_bert: Callable[..., Path], pairs: Path) -> None:
    model = warm_start(make_bert())

    def preprocess(texts: list[str], **options: Any) -> dict[str, Any]:
        found = model.preprocess(texts, **options)
        return found | {"token_type_ids": (found["input_ids"] % 2)}

    assert token_rows(data_of(pairs), model, Collator(preprocess_fn=preprocess)) is None


def test_ids_are_kept_under_what_decides_them(
    make_bert: Callable[..., Path], pairs: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = warm_start(make_bert(prompts=PROMPTS))
    made = []
    real = tokens._write
    monkeypatch.setattr(tokens, "_write", lambda *arguments: made.append(1) or real(*arguments))

    def entries(pairs: Path = pairs, **options: Any) -> int:
        model.encode(["passing settings of the tokenizer"])
        found = token_rows(data_of(pairs, dev_rows=options.pop("dev", 0)), model, collator_of(model, **options))
        assert found is not None
        return len(made)

    assert [entries(), entries(), entries(dev=20)] == [1, 1, 1]
    assert [entries(max_length=9), entries(prompts={"anchor": "query: "})] == [2, 3]
    model.tokenizer.truncation_side = "left"
    assert entries() == 4
    other = pairs.with_name("other.jsonl")
    other.write_text(pairs.read_text().replace("the", "a", 1))
    assert entries(other) == 5
    assert len(list(cache.iterdir())) == 5


@pytest.mark.parametrize("name", ["tokens.arrow", "entry.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_ids_are_made_anew(
    make_bert: Callable[..., Path], pairs: Path, cache: Path, name: str, damage: str
) -> None:
    model = warm_start(make_bert())
    data, stock = data_of(pairs), collator_of(model)
    token_rows(data, model, stock)
    (file,) = cache.glob(f"*/{name}")
    whole = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    found = token_rows(data, model, stock)
    assert found is not None and file.read_bytes() == whole
    assert_same(found[1](found[0].__getitems__([5, 7])), stock(data.train.__getitems__([5, 7])))


def recipe_of(folder: Path, start: Path, pairs: Path, *more: str) -> Recipe:
    base = [f"output={folder}", "name=run", f"model.start={start}", f"data.train={pairs}", "train.precision=fp32"]
    return load_recipe(None, [*base, "train.batch=8", "data.dev_rows=20", *more])


@pytest.mark.parametrize("more", [["train.max_length=9"], ["data.group=topic"], ["data.group=positive"]])
def test_a_trainer_sees_the_same_batches(
    make_bert: Callable[..., Path], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    start = make_bert(prompts=PROMPTS)
    recipe = recipe_of(tmp_path, start, pairs, *more)
    seen = []
    for way in (token_rows, lambda *arguments: None):
        monkeypatch.setattr("spectra_nsa.training.data.token_cache.token_rows", way)
        data = load_training_data(recipe.data, seed=0, quarantine=None)
        trainer = build_trainer(recipe, warm_start(start), data, RunSetup(folder=tmp_path / "run"))
        assert (trainer.texts is None) == (way is not token_rows)
        seen.append(list(trainer.get_train_dataloader()))
    assert len(seen[0]) == len(seen[1]) > 10
    for ours, stock in zip(*seen, strict=True):
        assert_same(ours, stock)


def test_a_run_that_does_not_see_all_rows_tokenises_by_the_batch(tmp_path: Path) -> None:
    assert sees_every_row(recipe_of(tmp_path, tmp_path, tmp_path), 83)
    assert sees_every_row(recipe_of(tmp_path, tmp_path, tmp_path, "train.max_steps=10"), 83)
    assert not sees_every_row(recipe_of(tmp_path, tmp_path, tmp_path, "train.max_steps=9"), 83)
    assert sees_every_row(recipe_of(tmp_path, tmp_path, tmp_path, "train.max_steps=5", "train.accumulation=2"), 83)
    assert not sees_every_row(recipe_of(tmp_path, tmp_path, tmp_path, "train.epochs=0.5"), 83)
