"""A run on several datasets: its batches, its log, and that it resumes exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spectra_nsa.cli.train import _plan, _plan_text
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.errors import UsageError
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.training.run import RunResult, train
from tests.builders import WORDS, bert_folder

Make = Callable[..., Recipe]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Returns a function that makes recipes of three datasets: pairs, triplets and scored pairs."""
    folder = tmp_path_factory.mktemp("sets")
    start = bert_folder(folder, prompts={"query": "query ", "document": ""})
    rows = {
        "pairs": [{"anchor": f"{a} {b}", "positive": f"{b} {a} the"} for a in WORDS[:6] for b in WORDS[8:16]],
        "triplets": [
            {"anchor": f"{a} query {b}", "positive": f"{b} open {a}", "negative": f"{b} to {a}"}
            for a in WORDS[:4]
            for b in WORDS[8:14]
        ],
        "scored": [
            {"sentence1": f"{a} and {b}", "sentence2": f"{b} to", "score": n % 5 / 4}
            for a in WORDS[:2]
            for n, b in enumerate(WORDS[6:14])
        ],
    }
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    base = [
        f"output={folder / 'runs'}", f"model.start={start}", "data.dev_rows=8",
        *(f"data.sets.{name}.train={folder / name}.jsonl" for name in rows),
        "data.sets.scored.terms=[cosent]", "data.sets.triplets.prompts={query: 'a query ', document: 'the '}",
        "train.batch=8", "train.epochs=2", "train.checkpoint_every=3", "train.evaluate_every=3", "train.log_every=2",
        "train.lr=1e-3", "train.precision=fp32", "train.keep_checkpoints=99", "monitor.rows=0", "train.fit_heads=0",
    ]  # fmt: skip
    return lambda *more: load_recipe(None, [*base, *more])


@pytest.fixture(scope="module")
def seen() -> list[tuple[Any, ...]]:
    """The batches of `trained`: dataset, texts of a row, prompt lengths, terms."""
    return []


@pytest.fixture(scope="module")
def trained(make: Make, seen: list[tuple[Any, ...]]) -> RunResult:
    forward = LossStack.forward

    def watched(self: LossStack, features: Any, labels: Any = None) -> Any:
        columns = list(features)
        values = forward(self, columns, labels)
        lengths = [int(column["attention_mask"].sum()) for column in columns]
        seen.append((self.dataset, len(columns), labels is not None, {name.split("_")[0] for name in values}, lengths))
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossStack, "forward", watched)
        return train(make("name=whole"))


def logged(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    varying = (
        "time",
        "pairs_per_second",
        "tokens_per_second",
        "matmul_share",
        "memory_gb",
        "eval_runtime",
        "padding_waste",
    )
    return [
        {key: value for key, value in row.items() if key not in varying}
        for row in rows
        if not {"started", "ended", "warning"} & set(row)
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_each_batch_is_of_one_dataset_with_its_own_terms(trained: RunResult, seen: list[tuple[Any, ...]]) -> None:
    assert trained.steps == len(seen) == 2 * (5 + 3 + 2)
    kinds = {name: (texts, scored) for name, texts, scored, _, _ in seen}
    assert kinds == {"pairs": (2, False), "triplets": (3, False), "scored": (2, True)}
    terms = {name: terms for name, _, _, terms, _ in seen}
    assert terms["scored"] == {"cosent"}
    assert "ranking" in terms["triplets"] and "ranking" not in terms["pairs"] and "semantic" in terms["pairs"]


def test_each_dataset_has_its_prompts(trained: RunResult, seen: list[tuple[Any, ...]]) -> None:
    lengths = {name: lengths for name, _, _, _, lengths in seen}
    assert lengths["pairs"] == [8 * (2 + 1 + 2), 8 * (2 + 3)]  # the model's: "query" before anchors
    assert lengths["triplets"] == [8 * (2 + 2 + 3), 8 * (2 + 1 + 3), 8 * (2 + 1 + 3)]


def test_the_log_has_the_loss_of_each_dataset(trained: RunResult, seen: list[tuple[Any, ...]]) -> None:
    rows = [row for row in logged(trained.folder) if "loss" in row]
    assert {key for row in rows for key in row if key.startswith("loss_")} == {
        "loss_pairs",
        "loss_triplets",
        "loss_scored",
    }
    first = rows[0]
    assert first[f"loss_{seen[0][0]}"] == pytest.approx(first["loss"], abs=1e-3)
    assert sum(key.startswith("loss_") for key in first) == 1
    two = rows[1]  # steps 2 … 2, then pairs of steps
    assert two["step"] == 2 and two[f"loss_{seen[1][0]}"] == pytest.approx(two["loss"], abs=1e-3)


def test_a_run_resumes_bit_for_bit(trained: RunResult, make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    for step in (3, 15):  # within the first epoch and within the second, between two lines of the log
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(trained.folder, folder)
        shutil.rmtree(folder / "model")
        for checkpoint in (folder / "checkpoints").glob("step-*"):
            if int(checkpoint.name[5:]) > step:
                shutil.rmtree(checkpoint)
        assert train(None, resume=folder).steps == 20
        assert all(torch.equal(weight, weights(folder)[name]) for name, weight in weights(trained.folder).items())
        assert logged(folder) == logged(trained.folder)


def test_other_datasets_are_not_resumed(trained: RunResult, make: Make) -> None:
    for more, message in (
        ("data.sets.pairs.weight=2", r"data.sets was .*pairs with 40 rows, weight 1.*is .*weight 2"),
        ("data.mixing=round_robin", "data.mixing was proportional, is round_robin"),
        ("data.sets.pairs.limit=40", "data.sets was"),
    ):
        with pytest.raises(UsageError, match=message):
            train(make("name=whole", more), resume=trained.folder)


def test_token_ids_make_the_batches_of_the_texts(
    trained: RunResult, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectra_nsa.training.data.token_cache.token_rows", lambda *args: None)
    result = train(make("name=texts"))
    assert all(torch.equal(weight, weights(result.folder)[name]) for name, weight in weights(trained.folder).items())


def test_a_dry_run_shows_each_dataset(make: Make) -> None:
    plan = _plan(make("data.mixing=round_robin", "data.sets.pairs.weight=2", "train.epochs=1"))
    assert {name: part["batches"] for name, part in plan["sets"].items()} == {"pairs": 4, "triplets": 2, "scored": 2}
    assert plan["steps"] == 8 and plan["memory_for"]["texts"] == 3
    assert "scored: 16 rows, 2 batches an epoch; loss: cosent" in _plan_text(plan)


def test_a_cached_pass_and_accumulation_mix_datasets(trained: RunResult, make: Make) -> None:
    more = ("train.cached_pass_tokens=64", "train.accumulation=3", "train.max_steps=3", "train.log_every=1")
    result = train(make("name=cached", *more))
    assert result.steps == 3
    assert len([key for row in logged(result.folder) for key in row if key.startswith("loss_")]) > 3


def test_one_dataset_by_name_is_that_dataset(make: Make, tmp_path: Path) -> None:
    """The same rows as `data.train`, in another order: a dataset by name has a seed of its own."""
    recipe = make("name=one", "train.max_steps=2")
    assert recipe.data.sets is not None
    alone = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"sets": {"pairs": recipe.data.sets["pairs"]}})}
    )
    assert train(alone).steps == 2
