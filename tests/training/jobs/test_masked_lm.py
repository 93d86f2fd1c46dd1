"""Masked-LM pretraining: it learns, resumes exactly, and leaves a model that other runs start from."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM

import spectra_nsa.hf  # noqa: F401 (registers)
from spectra_nsa.cli.pretrain import _plan, _plan_text, _summary
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.export.bert import export_bert_masked_lm
from spectra_nsa.models.masked_lm import saved_head
from spectra_nsa.models.model import SpectraForMaskedLM
from spectra_nsa.models.sentence import load
from spectra_nsa.report.run_log import read_run
from spectra_nsa.report.run_status import run_status
from spectra_nsa.training.data.documents import Documents
from spectra_nsa.training.jobs import checked_recipe
from spectra_nsa.training.jobs.masked_lm import set_bias_to_frequencies
from spectra_nsa.training.run import RunResult, pretrain, train
from tests.builders import WORDS
from tests.tools.fork_server import ForkServer


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences in which each word follows from the one before."""
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        first, length = generator.integers(len(WORDS)), generator.integers(3, 14)
        rows.append(" ".join(WORDS[(first + place) % len(WORDS)] for place in range(length)))
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, start: Path, texts: Path) -> Callable[..., Recipe]:
    base = [
        f"output={tmp_path_factory.mktemp('runs')}", "name=run", f"model.start={start}", f"data.train={texts}",
        "data.dev_rows=20", "train.batch=4", "train.checkpoint_every=4", "train.evaluate_every=4", "train.log_every=3",
        "train.lr=5e-3", "train.precision=fp32", "train.keep_checkpoints=99", "train.max_steps=16",
        "model.dropout=0.1", "model.max_length=32",
    ]  # fmt: skip
    return lambda *more: load_recipe(None, [*base, *more])


@pytest.fixture(scope="module")
def trained(recipe: Callable[..., Recipe]) -> RunResult:
    return pretrain(recipe())


@pytest.fixture
def run_copy(trained: RunResult, tmp_path: Path) -> Path:
    shutil.copytree(trained.folder, tmp_path / "run")
    return tmp_path / "run"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "loss", "grad_norm", "learning_rate", "eval_dev_perplexity", "epoch")
    return [{key: row[key] for key in kept if key in row} for row in rows if {"loss", "eval_dev_perplexity"} & set(row)]


def test_the_held_out_perplexity_falls(trained: RunResult) -> None:
    state = run_status(read_run(trained.folder).rows, now=0.0)
    assert trained.steps == 16 and trained.ended == "finished"
    assert state["dev"]["metric"] == "dev_perplexity"
    assert state["dev"]["best"] == trained.best["dev_perplexity"] < trained.start["dev_perplexity"]
    assert "tokens_per_second" in state["throughput"] and "pairs_per_second" not in state["throughput"]
    assert (trained.folder / "report.html").is_file()


def test_it_starts_at_the_frequencies_of_the_tokens(trained: RunResult, start: Path) -> None:
    pieces = len(AutoTokenizer.from_pretrained(start))
    assert trained.start["dev_perplexity"] < 1.1 * len(WORDS) < 0.5 * pieces, "an untrained head would guess any piece"
    bias = torch.full((4,), torch.nan)
    ids = np.array([1, 1, 1, 3], dtype=np.int32)
    set_bias_to_frequencies(bias, Documents(ids=ids, begins=ids > 0, ends=np.array([4])))
    torch.testing.assert_close(bias.diff(), torch.tensor([4.0, 1 / 4, 2.0]).log())
    assert abs(float(bias.mean())) < 1e-6


@pytest.mark.parametrize("step", [0, 4, 12])
def test_a_resumed_run_ends_bit_identical(trained: RunResult, run_copy: Path, step: int) -> None:
    shutil.rmtree(run_copy / "model")
    for checkpoint in (run_copy / "checkpoints").glob("step-*"):
        if int(checkpoint.name[5:]) > step:
            shutil.rmtree(checkpoint)
    resumed = pretrain(None, resume=run_copy)
    assert resumed.first_step == step and resumed.steps == 16
    torch.testing.assert_close(weights(run_copy), weights(trained.folder), rtol=0, atol=0)
    assert rows_of(run_copy) == rows_of(trained.folder)


def test_runs_killed_at_any_moment_end_bit_identical(
    start: Path, texts: Path, tmp_path: Path, fork_server: ForkServer
) -> None:
    options = [
        "pretrain", "--model", str(start), "--data", str(texts), "--batch", "4", "--max-steps", "10", "data.dev_rows=8",
        "train.checkpoint_every=2", "train.evaluate_every=1", "train.log_every=3", "train.precision=fp32",
        "train.accumulation=2", "model.dropout=0.1", "model.max_length=32", f"output={tmp_path}",
    ]  # fmt: skip
    uninterrupted = tmp_path / "uninterrupted"
    command = fork_server.start(*options, "--name", "uninterrupted", folder=uninterrupted)
    done = command.wait()
    assert done.returncode == 0, done.stderr
    for share in (0.35, 0.8):
        part = tmp_path / f"part-{share}"
        kill_at = int(share * command.events)
        killed = fork_server.start(*options, "--name", part.name, folder=part, kill_at=kill_at).wait()
        assert killed.returncode == -signal.SIGKILL
        assert not (part / "model").exists()
        resumed = fork_server.run("pretrain", "--resume", str(part))
        assert resumed.returncode == 0, resumed.stderr
        torch.testing.assert_close(weights(part), weights(uninterrupted), rtol=0, atol=0)
        assert rows_of(part) == rows_of(uninterrupted)


def test_the_saved_model_is_a_masked_lm_and_a_start(trained: RunResult, tmp_path: Path) -> None:
    folder = trained.folder / "model"
    masked = AutoModelForMaskedLM.from_pretrained(folder).eval()
    assert isinstance(masked, SpectraForMaskedLM)
    ids = torch.tensor([[2, 11, 4, 13, 3]])
    trained.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(masked(ids).logits, trained.model(ids).logits, rtol=0, atol=0)
    sentence = load(folder)
    for name, value in sentence.spectra.state_dict().items():
        assert torch.equal(value, masked.model.state_dict()[name]), name
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"anchor": a, "positive": f"{a} file"}) + "\n" for a in WORDS))
    more = [f"output={tmp_path}", "name=pairs", f"model.start={folder}", f"data.train={pairs}", "train.lr=1e-12"]
    after = train(load_recipe(None, [*more, "train.batch=4", "train.max_steps=1", "train.precision=fp32"]))
    tokens = after.model.spectra.encoder.embeddings.tokens.weight
    torch.testing.assert_close(tokens.cpu(), masked.model.encoder.embeddings.tokens.weight, rtol=0, atol=1e-9)


def test_a_second_run_takes_the_head_of_the_first(trained: RunResult, recipe: Callable[..., Recipe]) -> None:
    again = pretrain(recipe("name=again", f"model.start={trained.folder / 'model'}", "train.max_steps=1"))
    assert again.start["dev_perplexity"] == pytest.approx(trained.best["dev_perplexity"], rel=1e-5)


def test_a_checkpoint_is_also_a_start(trained: RunResult, recipe: Callable[..., Recipe]) -> None:
    checkpoint = trained.folder / "checkpoints" / "step-8"
    again = pretrain(recipe("name=branch", f"model.start={checkpoint}", "train.max_steps=1"))
    measured = [row for row in rows_of(trained.folder) if row["step"] == 8 and "eval_dev_perplexity" in row]
    assert again.start["dev_perplexity"] == pytest.approx(measured[0]["eval_dev_perplexity"], rel=1e-5)


def test_bert_and_back(trained: RunResult, tmp_path: Path) -> None:
    words = AutoTokenizer.from_pretrained(trained.folder / "model")
    export_bert_masked_lm(trained.model, words, tmp_path / "bert")
    bert = BertForMaskedLM.from_pretrained(tmp_path / "bert").eval()
    ids = torch.tensor([[2, 11, 4, 13, 3]])
    trained.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(bert(ids).logits, trained.model(ids).logits, rtol=0, atol=1e-5)
    head = saved_head(tmp_path / "bert")
    assert head is not None and torch.equal(head["dense.weight"], trained.model.lm_head.dense.weight)
    assert saved_head(Path(trained.folder / "model")) is not None


def test_a_sparse_encoder_is_trained_from_it(trained: RunResult, tmp_path: Path) -> None:
    module = Transformer(str(trained.folder / "model"), transformer_task="fill-mask")
    sparse = SparseEncoder(modules=[module, SpladePooling("max")], device="cpu")
    before = {name: value.clone() for name, value in sparse.state_dict().items()}
    rows = Dataset.from_dict({"anchor": WORDS[:8], "positive": [f"{word} file" for word in WORDS[:8]]})
    loss = SpladeLoss(
        sparse,
        SparseMultipleNegativesRankingLoss(sparse),
        document_regularizer_weight=1e-3,
        query_regularizer_weight=1e-3,
    )
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, report_to="none", use_cpu=True,
        disable_tqdm=True, learning_rate=1e-3, save_strategy="no",
    )  # fmt: skip
    trainer = SparseEncoderTrainer(model=sparse, args=arguments, train_dataset=rows, loss=loss)
    trainer.train()
    assert trainer.state.global_step == 2
    moved = [name for name, value in sparse.state_dict().items() if not torch.equal(value, before[name])]
    assert any("lm_head" in name for name in moved) and any("layers.0" in name for name in moved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pretrain.mask_rate=0.3", "pretrain.mask_rate was 0.15, is 0.3"),
        ("train.batch=5", "train.batch was 4, is 5"),
        ("data.limit=100", r"rows was \d+, is \d+"),
    ],
)
def test_different_data_or_masks_are_refused(run_copy: Path, change: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        pretrain(load_recipe(run_copy / "recipe.yaml", [change]), resume=run_copy)
    assert "spectra pretrain --model" in str(caught.value)


def test_what_cannot_be_pretrained_is_refused(recipe: Callable[..., Recipe], tmp_path: Path, start: Path) -> None:
    for change, message in (
        ("loss.temperature=0.1", "loss means nothing"),
        ("train.cached_pass_tokens=64", r"train\.cached_pass_tokens means nothing"),
    ):
        with pytest.raises(UsageError, match=message):
            pretrain(recipe("name=refused", change))
    with pytest.raises(UsageError, match=r"train\.patience waits"):
        pretrain(recipe("name=patient", "train.patience=2", "data.dev_rows=0"))
    (tmp_path / "one.jsonl").write_text('{"text": "  "}\n')
    with pytest.raises(SpectraError, match="none of its 1 row"):
        pretrain(recipe("name=empty", f"data.train={tmp_path}/one.jsonl"))


def test_a_pretraining_run_is_not_one_of_train(run_copy: Path) -> None:
    with pytest.raises(UsageError, match=rf"is a run of spectra pretrain\. .* spectra pretrain --resume {run_copy}$"):
        train(None, resume=run_copy)
    text = (run_copy / "recipe.yaml").read_text()
    (run_copy / "recipe.yaml").write_text(text[: text.index("pretrain:")])
    with pytest.raises(UsageError, match="spectra train --resume"):
        pretrain(None, resume=run_copy)


def test_sources_and_columns_add_up(recipe: Callable[..., Recipe], texts: Path, tmp_path: Path) -> None:
    from spectra_nsa.training.data.documents import load_texts

    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"anchor": f"a {n}", "positive": f"b {n}"}) + "\n" for n in range(10)))
    loaded = load_texts(recipe(f"pretrain.extra_sources=[{pairs}]", "data.dev_rows=30"), quarantine=None)
    every = {json.loads(line)["text"] for line in texts.read_text().splitlines()}
    every |= {f"{side} {n}" for side in "ab" for n in range(10)}
    assert set(loaded.train) | set(loaded.dev) == every and not set(loaded.train) & set(loaded.dev)


def test_columns_apply_to_every_source_that_has_them(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    from spectra_nsa.training.data.documents import load_texts

    for name in ("train", "more", "dev"):
        (tmp_path / f"{name}.csv").write_text(f"story\n{name} 1\n{name} 2\n")
    files = {name: tmp_path / f"{name}.csv" for name in ("train", "more", "dev")}
    told = [f"data.train={files['train']}", f"pretrain.extra_sources=[{files['more']}]", f"data.dev={files['dev']}"]
    held = load_texts(recipe(*told, "data.columns={text: story}"), quarantine=None)
    assert (held.train, held.dev) == (["train 1", "train 2", "more 1", "more 2"], ["dev 1", "dev 2"])


def test_spellings_of_held_out_texts_are_left_out(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    from spectra_nsa.training.data.documents import load_texts

    for name, lines in {"train": ["Held  OUT", "kept", "kept"], "dev": ["held out"]}.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    files = [f"data.train={tmp_path / 'train.txt'}", f"data.dev={tmp_path / 'dev.txt'}"]
    loaded = load_texts(recipe(*files), quarantine=None)
    assert (loaded.train, loaded.left_out) == (["kept", "kept"], 1)


def test_a_run_says_what_it_left_out(
    recipe: Callable[..., Recipe], texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = texts.read_text().splitlines()
    (tmp_path / "twice.jsonl").write_text("\n".join([*lines, "not json", *lines, '{"text": ""}']) + "\n")
    result = pretrain(recipe("name=counted", f"data.train={tmp_path}/twice.jsonl", "train.max_steps=1"))
    stderr, folder = capsys.readouterr().err, result.folder
    counts = re.search(
        rf"{folder}: 1 step on (\d+) texts, (\d+) held out, (\d+) left out \(equal to a held-out text", stderr
    )
    assert counts is not None, stderr
    trained, dev, left_out = map(int, counts.groups())
    assert trained + 20 + left_out == 400 and 0 < dev <= 20 and left_out >= 2 * dev - 20
    assert f", 2 rows quarantined in {folder}/quarantine. To watch it: spectra monitor {folder}\n" in stderr
    plan = _plan(checked_recipe(recipe(f"data.train={tmp_path}/twice.jsonl"), "pretrain"))
    assert (plan["texts"], plan["left_out"], plan["quarantined"]) == (trained, left_out, 2)
    assert f"{left_out} left out (equal to a held-out text), 2 quarantined" in _plan_text(plan)


def test_a_dry_run_says_where_a_run_would_resume(run_copy: Path) -> None:
    plan = _plan(load_recipe(run_copy / "recipe.yaml"), run_copy / "checkpoints" / "step-12")
    assert plan["first_step"] == 12 and "Resuming from step 12 of 16. Nothing was trained." in _plan_text(plan)


def test_a_run_that_has_ended_takes_no_step(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resumed = pretrain(load_recipe(run_copy / "recipe.yaml", ["train.max_steps=8"]), resume=run_copy)
    assert resumed.steps == resumed.first_step == 16
    assert f"{run_copy}: already at step 16, beyond 8: no step to take" in capsys.readouterr().err
    assert "the run already ended at step 16" in _summary(resumed) and "0 steps" not in _summary(resumed)


def test_the_batch_can_count_tokens(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    result = pretrain(recipe("name=tokens", "pretrain.batch_tokens=64", "train.max_steps=2", "data.dev_rows=0"))
    manifest = json.loads((result.folder / "checkpoints" / "step-2" / "manifest.json").read_text())
    assert manifest["run"]["pretrain.batch_tokens"] == 64 and result.best == {}
