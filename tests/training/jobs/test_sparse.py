"""Runs that train sparse encoders: what they leave, that they resume exactly, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SparseEncoder

import spectra_nsa.hf  # noqa: F401
from spectra_nsa.config.recipe import Recipe, load_recipe, load_run_recipe
from spectra_nsa.config.terms import TERM_FACTS
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.models.open import open_model
from spectra_nsa.models.sparse.facts import sparse_facts
from spectra_nsa.report.run_log import read_run
from spectra_nsa.report.run_status import run_status
from spectra_nsa.training.data.rows import load_training_data
from spectra_nsa.training.init.sparse_start import planned_sparse
from spectra_nsa.training.jobs.pairs import dev_evaluator
from spectra_nsa.training.monitor.dev_metric import DevEvaluator
from spectra_nsa.training.monitor.sparse_health import SparseHealth
from spectra_nsa.training.run import RunResult, train
from tests.builders import WORDS, bert_folder, tiny_masked_lm


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs that share two words, with a column of negatives."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(120):
        shared = list(generator.choice(WORDS, 2, replace=False))
        anchor, positive = (" ".join([*shared, *generator.choice(WORDS, n)]) for n in generator.integers(1, 6, 2))
        rows.append({"anchor": anchor, "positive": positive, "negative": " ".join(generator.choice(WORDS, 4))})
    path = tmp_path_factory.mktemp("data") / "triplets.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_masked_lm(tmp_path_factory.mktemp("masked-lm") / "model")


def recipe_of(folder: Path, start: Path | None, pairs: Path, *more: str) -> Recipe:
    base = [
        f"output={folder}", "name=run", f"data.train={pairs}", "data.dev_rows=20", "train.batch=8",
        "train.max_steps=8", "train.checkpoint_every=4", "train.evaluate_every=4", "train.log_every=2",
        "train.lr=1e-3", "train.precision=fp32", "sparse.query_active=6", "sparse.document_active=9",
        "sparse.calibrate=40", "sparse.highest_df=null", *([f"model.start={start}"] if start is not None else []),
    ]  # fmt: skip
    return load_recipe(None, [*base, *more])


def logs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same(model: SparseEncoder, library: SparseEncoder, role: str) -> None:
    """Compares vectors, except for those that are empty in the library and have one term in ours."""
    ours, wanted = dense(model, role), dense(library, role)
    filled = wanted.any(1)
    assert filled.sum() > len(filled) / 2
    np.testing.assert_allclose(ours[filled], wanted[filled], atol=1e-6)


def dense(model: SparseEncoder, role: str) -> np.ndarray:
    return getattr(model, f"encode_{role}")([" ".join(WORDS[at : at + 4]) for at in range(8)]).to_dense().numpy()


@pytest.mark.parametrize("kind", ["splade", "inference_free"])
def test_a_run_leaves_a_model_that_the_library_opens(tmp_path: Path, masked_lm: Path, pairs: Path, kind: str) -> None:
    result = train(recipe_of(tmp_path, masked_lm, pairs, f"sparse.kind={kind}"))
    library = SparseEncoder(str(result.folder / "model"), device="cpu")
    for role in ("query", "document"):
        assert_same(result.model, library, role)
    assert "dev_ndcg@10" in result.best and result.steps == 8
    lines = logs(result.folder)
    health = [line for line in lines if "health_document_active" in line]
    card = (result.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert f"**Base model:** {masked_lm.name}\n" in card and f"**Training Dataset:** {pairs.name} (100 rows)" in card
    assert str(masked_lm.parent) not in card and str(pairs.parent) not in card
    assert sum("final" not in line for line in health) == 3 and health[-1]["health_query_highest_df"] <= 1
    loss = [line for line in lines if "sparse_semantic" in line][-1]
    assert loss["query_active"] > 0 and loss["document_lambda"] > 0
    page = (Path(__file__).parents[3] / "docs/reference/files.md").read_text(encoding="utf-8")
    keys = [key for key in (*health[-1], *loss) if key.startswith(("health", "query", "document"))]
    own = [key.removeprefix("health_") for key in keys if key not in TERM_FACTS]
    assert len(own) == 15 and not [key for key in own if f"`{key}`" not in page], "the reference names every figure"
    if kind == "inference_free":
        static = result.model.static("query")
        assert static.weight.min() >= 0 and not static.weight[result.model.tokenizer.all_special_ids].any()


@pytest.mark.parametrize("kind", ["splade", "inference_free"])
def test_a_resumed_run_ends_at_the_same_bits(tmp_path: Path, masked_lm: Path, pairs: Path, kind: str) -> None:
    more = (f"sparse.kind={kind}", "loss.terms.document_df_flops.weight=1e-3", "train.keep_checkpoints=3")
    whole = train(recipe_of(tmp_path / "whole", masked_lm, pairs, *more))
    copy = tmp_path / "copy" / "run"
    shutil.copytree(whole.folder, copy)
    shutil.rmtree(copy / "model")
    shutil.rmtree(copy / "checkpoints" / "step-8")
    resumed = train(recipe_of(tmp_path / "copy", masked_lm, pairs, *more), resume=copy)
    assert resumed.first_step == 4
    ours, wanted = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in wanted.items())
    last = [[line for line in logs(run.folder) if "sparse_semantic" in line][-1] for run in (resumed, whole)]
    same = ("sparse_semantic", "query_active", "document_active", "document_lambda", "query_lambda")
    assert [last[0][key] for key in same] == [last[1][key] for key in same]


def test_an_encoder_without_a_head_gets_one_in_closed_form(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = bert_folder(tmp_path / "start")
    result = train(recipe_of(tmp_path, start, pairs, "train.max_steps=2"))
    assert "head: in closed form" in capsys.readouterr().err
    assert result.model.masked_lm().config.tie_word_embeddings is False
    with pytest.raises(SpectraError, match="closed_form"):
        train(recipe_of(tmp_path, start, pairs, "sparse.head=checkpoint", "name=other"))


def test_our_own_backbone_trains_too(tmp_path: Path, masked_lm: Path, pairs: Path) -> None:
    result = train(recipe_of(tmp_path, masked_lm, pairs, "model.spectral=true", "train.max_steps=2"))
    assert type(result.model.masked_lm()).__name__ == "SpectraForMaskedLM"
    library = SparseEncoder(str(result.folder / "model"), device="cpu")
    assert_same(result.model, library, "document")


def test_teachers_and_cached_passes(tmp_path: Path, masked_lm: Path, pairs: Path) -> None:
    teacher = bert_folder(tmp_path / "teacher")
    more = (f"distill.teachers=[{teacher}]", "loss.terms.sparse_margin_mse.weight=0.01", "train.max_steps=2")
    plain = train(recipe_of(tmp_path / "plain", masked_lm, pairs, *more))
    cached = train(recipe_of(tmp_path / "cached", masked_lm, pairs, *more, "train.cached_pass_tokens=64"))
    lines = [[line for line in logs(run.folder) if "sparse_kl" in line] for run in (plain, cached)]
    assert lines[0] and "sparse_margin_mse" in lines[0][0]
    for ours, wanted in zip(*lines, strict=True):  # Adam's first step makes much of rounding errors in the weights
        for key in ("loss", "sparse_kl", "sparse_margin_mse", "document_active", "document_lambda"):
            assert ours.get(key, 0) == pytest.approx(wanted.get(key, 0), rel=2e-3)


def test_no_term_is_in_too_many_documents(
    tmp_path: Path, masked_lm: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(recipe_of(tmp_path, masked_lm, pairs, "sparse.highest_df=0.4", "train.max_steps=2"))
    said = capsys.readouterr().err
    before = re.search(r"head: (\d+) active terms a document in a sample of 40 before calibration, (\d+) after", said)
    lowered = re.search(r"head: (\d+) terms lowered that were in more than 0.36 of 100 documents", said)
    left = re.search(r"head: (\d+) active terms a document are left in these 40", said)
    assert before and lowered and left and before.end() < lowered.start() < left.start()
    assert int(left[1]) < int(before[2])
    check_final_figures(result, "health_document_active")
    documents = [json.loads(line)["positive"] for line in pairs.read_text(encoding="utf-8").splitlines()]
    rows = result.model.encode_csr(documents, "document")
    assert np.bincount(rows.indices).max() <= 0.45 * len(documents)


@pytest.mark.parametrize("key", ["train.interpolate=0.5", "model.pooling=cls", "loss.temperature=0.1"])
def test_keys_of_dense_models_are_refused(tmp_path: Path, masked_lm: Path, pairs: Path, key: str) -> None:
    with pytest.raises(UsageError, match=key.partition("=")[0]):
        train(recipe_of(tmp_path, masked_lm, pairs, key))


def test_a_model_of_the_other_kind_is_refused(tmp_path: Path, masked_lm: Path, pairs: Path) -> None:
    result = train(recipe_of(tmp_path, masked_lm, pairs, "sparse.kind=inference_free", "train.max_steps=1"))
    with pytest.raises(SpectraError, match="inference_free"):
        train(recipe_of(tmp_path, result.folder / "model", pairs, "name=other"))


@pytest.mark.parametrize("head", ["checkpoint", "closed_form"])
def test_the_planned_size_is_that_of_the_saved_model(tmp_path: Path, masked_lm: Path, pairs: Path, head: str) -> None:
    recipe = recipe_of(tmp_path, masked_lm, pairs, f"sparse.head={head}", "train.max_steps=1")
    planned = planned_sparse(recipe)[0]
    model = train(recipe).folder / "model"
    assert sparse_facts(model)["parameters"] == planned


def check_final_figures(result: RunResult, figure: str) -> None:
    """Checks that the last figures in the log are those of the saved model."""
    recipe = load_run_recipe(result.folder / "recipe.yaml")
    data = load_training_data(recipe.data, seed=recipe.train.seed, quarantine=None, distill=recipe.distill)
    model = open_model(result.folder / "model", accept=("sparse",))
    evaluator = dev_evaluator(recipe, data, "fp32")
    assert evaluator is not None
    measured = evaluator(model)
    health = SparseHealth(data.first, recipe.monitor.rows, seed=recipe.train.seed, precision="fp32").measure(model)
    lines = logs(result.folder)
    dev = [line["eval_dev_ndcg@10"] for line in lines if "eval_dev_ndcg@10" in line][-1]
    assert result.best == {"dev_ndcg@10": dev} and measured["dev_ndcg@10"] == pytest.approx(dev, abs=1e-6)
    last = [line for line in lines if figure in line][-1]
    assert {key: last[key] for key in health} == pytest.approx(health, abs=1e-4)
    status = run_status(read_run(result.folder).rows, now=0)
    assert status["dev"]["kept"] == dev and status["health"][figure.removeprefix("health_")] == last[figure]


@pytest.mark.parametrize("highest", ["0.4", "null"])
def test_the_last_figures_are_those_of_the_best_checkpoint(
    tmp_path: Path, masked_lm: Path, pairs: Path, highest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, real = [0], DevEvaluator.__call__

    def call(self: DevEvaluator, *args: Any, **kwargs: Any) -> dict[str, float]:
        calls[0] += 1
        return {self.metric: 0.0} if calls[0] == 3 else real(self, *args, **kwargs)  # the last step is not the best

    monkeypatch.setattr(DevEvaluator, "__call__", call)
    result = train(recipe_of(tmp_path, masked_lm, pairs, f"sparse.highest_df={highest}"))
    assert [line["ended"]["kept"] for line in logs(result.folder) if "ended" in line] == [4]
    check_final_figures(result, "health_document_active")
