"""Runs: what they leave, that they resume exactly, and what stops them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import spectra_nsa as sp
from spectra_nsa.cli.train import _plan
from spectra_nsa.config.loss_sections import TermsSection
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.losses.stack import LossStack
from spectra_nsa.training.loop.step_callbacks import FiniteGradients
from spectra_nsa.training.monitor.dev_metric import DevEvaluator
from spectra_nsa.training.run import train
from spectra_nsa.training.runs.checkpoints import find_resume_point
from tests.builders import WORDS
from tests.tools.fork_server import ForkServer


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs that share two words, so that there is something to learn."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = []
    for _ in range(160):
        shared = list(generator.choice(WORDS, 2, replace=False))
        anchor, positive = (
            " ".join(generator.permutation([*shared, *generator.choice(WORDS, n)])) for n in generator.integers(1, 9, 2)
        )
        rows.append(json.dumps({"anchor": anchor, "positive": positive}))
    path.write_text("\n".join([*rows[:80], "not json", *rows[80:]]) + "\n", encoding="utf-8")
    return path


def recipe_of(folder: Path, start: Path, pairs: Path, *more: str) -> Recipe:
    base = [
        f"output={folder}", "name=run", f"model.start={start}", f"data.train={pairs}", "data.dev_rows=20",
        "train.batch=8", "train.max_steps=12", "train.checkpoint_every=4", "train.evaluate_every=4",
        "train.log_every=2", "train.lr=1e-3", "train.precision=fp32",
    ]  # fmt: skip
    return load_recipe(None, [*base, *more])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def logs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_model_of_a_mixed_run_is_the_one_that_was_saved(tmp_path: Path, start: Path, pairs: Path) -> None:
    result = train(recipe_of(tmp_path, start, pairs, "train.precision=bf16", "train.max_steps=4"))
    texts = [" ".join(WORDS[place : place + 5]) for place in range(6)]
    saved = sp.load(result.folder / "model").encode(texts)
    np.testing.assert_allclose(result.model.encode(texts), saved, atol=1e-6)  # bf16 would be 1e-3 away


def test_what_a_run_leaves(tmp_path: Path, start: Path, pairs: Path) -> None:
    result = train(recipe_of(tmp_path, start, pairs, "train.keep_checkpoints=2"))
    folder = tmp_path / "run"
    assert result.folder == folder and result.steps == 12 and not result.interrupted
    assert load_recipe(folder / "recipe.yaml") == recipe_of(tmp_path, start, pairs, "train.keep_checkpoints=2")
    assert sorted(path.name for path in (folder / "checkpoints").iterdir())[-1].startswith("step-")
    assert not list(folder.rglob(".writing")) and not list(folder.rglob("training_args.bin"))
    assert len(list((folder / "quarantine").glob("*"))) == 1
    assert not any(path.suffix in (".bin", ".pt", ".pth") for path in (folder / "model").rglob("*"))
    rows = logs(folder)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    assert all("grad_norm" in row and "semantic_32" in row for row in rows if "loss" in row)
    watched = {row["step"]: row["eval_dev_ndcg@10"] for row in rows if "eval_dev_ndcg@10" in row}
    assert set(watched) == {0, 4, 8, 12}
    assert result.start == {"dev_ndcg@10": pytest.approx(watched.pop(0))} and result.ended == "finished"
    assert result.best == {"dev_ndcg@10": pytest.approx(max(watched.values()))}
    model = sp.load(folder / "model")
    assert np.array_equal(model.encode(["open a file"]), result.model.encode(["open a file"]))
    assert not torch.equal(
        model.spectra.encoder.embeddings.tokens.weight, sp.warm_start(start).spectra.encoder.embeddings.tokens.weight
    )


def test_the_last_steps_are_logged_even_if_they_are_few(tmp_path: Path, start: Path, pairs: Path) -> None:
    every, tens = (
        logs(train(recipe_of(tmp_path / n, start, pairs, f"train.log_every={n}")).folder) for n in ("1", "10")
    )
    losses = {row["step"]: row["loss"] for row in every if "loss" in row}
    rows = [row for row in tens if "loss" in row]
    assert [row["step"] for row in rows] == [1, 10, 12]
    assert rows[-1]["loss"] == pytest.approx((losses[11] + losses[12]) / 2, rel=1e-4)
    assert any(key.startswith("grad_norm_") for key in rows[-1]) and rows[-1]["pairs_per_second"] > 0


def test_the_best_checkpoint_outlives_later_ones_and_is_the_model(
    tmp_path: Path, start: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of the start, which is no checkpoint, of steps 4, 8 and 12, of the model, of step 16, and of the model
    figures = iter([0.95, 0.9, 0.5, 0.4, 0.9, 0.6, 0.9])
    monkeypatch.setattr(DevEvaluator, "__call__", lambda self, *args, **more: {self.metric: next(figures)})
    folder = train(
        recipe_of(tmp_path, start, pairs, "train.keep_checkpoints=1", "train.schedule=constant_with_warmup")
    ).folder
    saved, kept = weights(folder / "model"), weights(folder / "checkpoints" / "step-4")
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step-4", "step-12"}
    assert all(torch.equal(saved[name], kept[name]) for name in kept)
    assert not all(torch.equal(saved[name], value) for name, value in weights(folder / "checkpoints/step-12").items())
    assert logs(folder)[-1]["ended"] == {"reason": "finished", "kept": 4}
    resumed = train(load_recipe(folder / "recipe.yaml", ["train.max_steps=16"]), resume=folder)
    assert (resumed.steps, resumed.best) == (16, {"dev_ndcg@10": 0.9})
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"step-4", "step-16"}
    saved = weights(folder / "model")
    assert all(torch.equal(saved[name], kept[name]) for name in kept)
    assert logs(folder)[-1]["ended"] == {"reason": "finished", "kept": 4}


@pytest.mark.parametrize("dropout", ["0.0", "0.1"])
def test_a_resumed_run_ends_bit_identical(tmp_path: Path, start: Path, pairs: Path, dropout: str) -> None:
    more = ("train.epochs=2", "train.max_steps=null", f"model.dropout={dropout}", "train.keep_checkpoints=99")
    whole = train(recipe_of(tmp_path / "a", start, pairs, *more))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    part = tmp_path / "b" / "run"
    shutil.rmtree(part / "model")
    for checkpoint in (part / "checkpoints").glob("step-*"):
        if int(checkpoint.name[5:]) > 20:  # in the second epoch
            shutil.rmtree(checkpoint)
    (part / "checkpoints" / ".writing").mkdir()  # what a kill inside a checkpoint leaves
    with (part / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99')
    resumed = train(None, resume=part)
    assert resumed.steps == whole.steps > 20
    a, b = weights(whole.folder / "model"), weights(part / "model")
    assert all(torch.equal(a[name], b[name]) for name in a)
    keys = ("step", "loss", "learning_rate", "eval_dev_ndcg@10")
    first, again = (
        [{k: r[k] for k in keys if k in r} for r in logs(folder) if set(keys[1:]) & set(r)]
        for folder in (whole.folder, part)
    )
    assert first == again


def test_ctrl_c_saves_a_checkpoint_and_resume_finishes(
    tmp_path: Path, start: Path, pairs: Path, fork_server: ForkServer
) -> None:
    recipe = recipe_of(
        tmp_path,
        start,
        pairs,
        "train.max_steps=100",
        "train.checkpoint_every=1000",
        "data.dev_rows=0",
        f"backup.to={tmp_path}/there",
    )
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    command = fork_server.start("train", str(tmp_path / "r.yaml"))
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    stopped = command.wait()
    assert stopped.returncode == 130, stopped.stderr
    step = int(re.search(r"stopped at step (\d+)", stopped.stderr)[1])  # type: ignore[index]
    assert (tmp_path / "run" / "checkpoints" / f"step-{step}" / "trainer_state.json").is_file()
    assert not (tmp_path / "run" / "model").exists()
    assert f"Interrupted at step {step} of 100" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "there" / "run" / f"step-{step}" / "manifest.json").is_file()
    done = fork_server.run("train", "--resume", str(tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["steps"] == 100 and Path(facts["model"]).is_dir()


def test_a_second_run_of_the_same_name_is_refused(tmp_path: Path, start: Path, pairs: Path) -> None:
    recipe = recipe_of(tmp_path, start, pairs, "train.max_steps=1", "data.dev_rows=0")
    train(recipe)
    with pytest.raises(SpectraError, match="--resume"):
        train(recipe)


def test_no_matryoshka_trains_one_size(tmp_path: Path, start: Path, pairs: Path) -> None:
    train(recipe_of(tmp_path, start, pairs, "train.max_steps=2", "data.dev_rows=0", "model.matryoshka=false"))
    terms = {key for row in logs(tmp_path / "run") for key in row if key.startswith("semantic")}
    assert terms == {"semantic_32"}


def test_an_accumulated_gradient_is_the_mean_of_its_batches(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"anchor": f"{word} file", "positive": f"{word} text"} for word in WORDS[:20]]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    batches: list[Any] = []
    errors: list[float] = []
    forward = LossStack.forward

    def recording(self: LossStack, features: Any, labels: Any = None) -> Any:
        batches.append((self, list(features)))
        return forward(self, batches[-1][1], labels)

    def compare(self: FiniteGradients, *_: Any, model: Any, **__: Any) -> None:
        found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        model.zero_grad()
        for stack, columns in batches:
            (sum(forward(stack, columns).values()) / len(batches)).backward()
        errors.append(max(float((found[n] - w.grad).abs().max()) for n, w in model.named_parameters() if n in found))
        counts.append(len(batches))
        batches.clear()

    counts: list[int] = []
    monkeypatch.setattr(LossStack, "forward", recording)
    monkeypatch.setattr(FiniteGradients, "on_pre_optimizer_step", compare)
    more = ["train.batch=4", "train.accumulation=3", "train.max_steps=null", "train.max_grad_norm=1e9"]
    train(recipe_of(tmp_path, start, tmp_path / "rows.jsonl", *more, "data.dev_rows=0", "model.dropout=0"))
    assert counts == [3, 2], "the last step of an epoch has fewer batches"
    assert max(errors) < 1e-6


def test_accumulation_and_checkpointing_run(tmp_path: Path, start: Path, pairs: Path) -> None:
    more = ("train.accumulation=2", "train.gradient_checkpointing=true", "train.max_steps=3", "data.dev_rows=0")
    assert train(recipe_of(tmp_path, start, pairs, *more)).steps == 3


def test_a_cached_run_ends_where_a_plain_one_does(tmp_path: Path, start: Path, pairs: Path) -> None:
    more = ("train.accumulation=2", "train.gradient_checkpointing=true", "train.max_steps=3", "data.dev_rows=0")
    plain = train(recipe_of(tmp_path, start, pairs, *more))
    cached = train(recipe_of(tmp_path, start, pairs, *more, "train.cached_pass_tokens=64", "name=cached"))
    a, b = weights(plain.folder / "model"), weights(cached.folder / "model")
    assert all((a[name] - b[name]).abs().max() <= 1e-5 for name in a if a[name].numel())
    first = [next(row for row in logs(run.folder) if "loss" in row) for run in (plain, cached)]
    norms = [{key: value for key, value in row.items() if "norm_" in key} for row in first]
    assert len(norms[0]) > 5 and norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_scored_pairs_teach_similarity(tmp_path: Path, start: Path) -> None:
    generator = np.random.default_rng(0)
    rows = []
    for number in range(160):
        shared = number % 5
        one = generator.choice(WORDS, 5, replace=False)
        rest = [word for word in WORDS if word not in one][: 5 - shared]
        texts = (" ".join(one), " ".join(generator.permutation([*one[:shared], *rest])))
        rows.append({"sentence1": texts[0], "sentence2": texts[1], "score": shared})
    source = tmp_path / "scored.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    terms = ["loss.terms.angle.weight=0.5", "loss.terms.cosine.weight=1", "loss.terms.contrastive.weight=1"]
    whole = train(recipe_of(tmp_path / "a", start, source, *terms, "train.max_steps=24"))
    assert whole.best["dev_spearman"] > whole.start["dev_spearman"] + 0.05
    logged = [row for row in logs(whole.folder) if "loss" in row][-1]
    assert {"cosent_32", "angle_32", "cosine_32", "contrastive_32", "fast"} <= set(logged)
    assert "semantic_32" not in logged and "anchor" not in logged
    half = train(recipe_of(tmp_path / "b", start, source, *terms, "train.max_steps=24"), deadline=None)
    shutil.rmtree(half.folder / "model")
    for later in ("step-20", "step-24"):
        shutil.rmtree(half.folder / "checkpoints" / later, ignore_errors=True)
    with_resume = train(None, resume=half.folder)
    found, wanted = (weights(run.folder / "model") for run in (with_resume, whole))
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_from_scratch_by_size(tmp_path: Path, start: Path, pairs: Path) -> None:
    recipe = load_recipe(
        None,
        [f"output={tmp_path}", "name=run", "model.size=small", f"model.tokenizer={start}", f"data.train={pairs}",
         "data.dev_rows=0", "train.max_steps=2", "train.batch=8"],
    )  # fmt: skip
    result = train(recipe)
    assert sp.load(result.folder / "model").encode(["open"]).shape == (1, 128)


def test_a_saved_model_can_be_trained_further(tmp_path: Path, start: Path, pairs: Path) -> None:
    first = train(recipe_of(tmp_path, start, pairs, "train.max_steps=1", "data.dev_rows=0"))
    more = ("name=again", f"model.start={first.folder / 'model'}", "train.max_steps=3", "data.dev_rows=0")
    again = train(recipe_of(tmp_path, start, pairs, *more))
    assert not np.array_equal(again.model.encode(["open"]), sp.load(first.folder / "model").encode(["open"]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('{"text": "a", "label": "b"}\n{"text": "c", "label": "d"}', "labeled"),
        ('{"anchor": "a", "positive": "b"}', "2"),
        ('{"anchor": "a", "positive": 1}', "none of its 1 row can be used"),
    ],
)
def test_data_that_cannot_be_trained_on(tmp_path: Path, start: Path, rows: str, message: str) -> None:
    (tmp_path / "d.jsonl").write_text(rows)
    with pytest.raises(SpectraError, match=message):
        train(recipe_of(tmp_path, start, tmp_path / "d.jsonl", "data.dev_rows=0"))
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_single_batch_is_refused(tmp_path: Path, start: Path) -> None:
    rows = [json.dumps({"anchor": f"a {i}", "positive": f"p {i % 2}"}) for i in range(30)]
    (tmp_path / "few.jsonl").write_text("\n".join(rows))
    with pytest.raises(SpectraError, match=r"30 rows make no batch of 16 .* Lower train\.batch"):
        train(recipe_of(tmp_path, start, tmp_path / "few.jsonl", "data.dev_rows=0", "train.batch=16"))
    assert not (tmp_path / "run" / "model").exists()


def test_no_data_is_bad_usage(tmp_path: Path, start: Path) -> None:
    with pytest.raises(UsageError, match="--data"):
        train(load_recipe(None, [f"output={tmp_path}", f"model.start={start}"]))


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpectraError, match="neither a run"):
        find_resume_point(tmp_path)


SCORED_ROWS = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": i / 8} for i in range(8)]
PAIR_ROWS = [{"anchor": f"a {i}", "positive": f"b {i}"} for i in range(8)]


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        (PAIR_ROWS, ["loss.terms.triplet.weight=1"], "loss.terms.triplet .* pairs: it needs hard negatives"),
        (PAIR_ROWS, ["loss.terms.contrastive.weight=1"], "loss.terms.contrastive .* pairs with a score"),
        (SCORED_ROWS, ["loss.terms.triplet.weight=1"], "nothing to learn from pairs with a score"),
        (
            [row | {"negative": "c", "s": [1.0, 12.3]} for row in PAIR_ROWS],
            ["distill.scores=[s]", "loss.terms.margin_mse.weight=1"],
            "from -1 to 1",
        ),
    ],
)
def test_a_term_that_does_not_apply_to_the_rows_is_refused_before_the_run_starts(
    rows: list[dict[str, Any]],
    changes: list[str],
    words: str,
    tmp_path: Path,
    start: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not json\n", encoding="utf-8")
    recipe = recipe_of(tmp_path, start, data, "data.dev_rows=0", *changes)
    for _ in range(2):  # the name stays free
        with pytest.raises(SpectraError, match=words):
            train(recipe)
    assert "To watch it" not in capsys.readouterr().err and not (tmp_path / "run").exists()
    (tmp_path / "run" / "quarantine").mkdir(parents=True)  # somebody's
    with pytest.raises(SpectraError, match=words):
        train(recipe)
    assert (tmp_path / "run" / "quarantine").is_dir()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(SpectraError, match=words):
        _plan(recipe)


def test_a_loss_without_terms_is_refused(tmp_path: Path, start: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in PAIR_ROWS), encoding="utf-8")
    silent = [f"loss.terms.{name}.weight=0" for name in TermsSection.model_fields]
    with pytest.raises(UsageError, match="no term of the loss"):
        train(recipe_of(tmp_path, start, data, "data.dev_rows=0", *silent))


def test_a_recipe_may_be_a_path_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("data: {train: gone.jsonl}\nmodel: {size: small}\n")
    for path in (tmp_path / "r.yaml", str(tmp_path / "r.yaml")):
        with pytest.raises(SpectraError, match=r"gone\.jsonl does not exist"):
            train(path)
    with pytest.raises(UsageError, match=r"there is no recipe gone\.yaml"):
        train("gone.yaml")
    with pytest.raises(UsageError, match="takes a Recipe or the path of a recipe file, not a dict"):
        train({"model": {"size": "small"}})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r'name a recipe or a run to resume: train\("recipe.yaml"\)'):
        train()
