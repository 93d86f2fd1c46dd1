"""A model from scratch that starts from another's words approximates, untrained, that model's static student."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.core.seeds import set_seed
from spectra_nsa.models.fresh import fresh_model
from spectra_nsa.models.sentence import SpectraSentenceTransformer
from spectra_nsa.models.static import principal_axes, sif_weights
from spectra_nsa.models.teacher import Teacher, open_teacher
from spectra_nsa.training.init.words import COMMON, begin_with_words
from spectra_nsa.training.run import train
from tests.builders import WORDS

ROWS = Dataset.from_dict({"text": [f"{a} {b} {c}" for a in WORDS for b in WORDS[:9] for c in WORDS[3:8]]})
SHAPES = [
    ("nexus-mini", {}),  # projected onto the source's width
    ("nexus-mini", {"semantic_dims": [24, 16]}),  # and onto another
    ("small", {}),  # not projected, wider
    ("small", {"hidden_size": 32}),  # not projected, as wide
    ("nexus-mini", {"pooling": "mean_max"}),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fresh(start: Path, size: str, **changes: object) -> SpectraSentenceTransformer:
    set_seed(0)
    return fresh_model(size, tokenizer=str(start), dropout=0.0, num_hidden_layers=2, **changes)


def wanted(start: Path, texts: list[str]) -> np.ndarray:
    """The cosines of Σ_w a / (a + p(w)) · (v_w − v̄), text by text, with the source's own v_w."""
    teacher = open_teacher(start)
    words = teacher.model.tokenizer
    counts = np.zeros(len(words) + 1, dtype=np.int64)
    for text in ROWS["text"]:
        np.add.at(counts, words(text, add_special_tokens=False)["input_ids"], 1)
    names = {number: piece.removeprefix("##") for piece, number in words.get_vocab().items()}
    known = [number for number in sorted(names) if number > 4]
    v_WE = teacher.encode([names[number] for number in known], "text").astype(np.float64)
    v_WE = (v_WE - v_WE.mean(0)) * sif_weights(counts[known], COMMON / len(known))[:, None]
    rows = dict(zip(known, v_WE, strict=True))
    z = np.stack([sum(rows[one] for one in words(text, add_special_tokens=False)["input_ids"]) for text in texts])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return (z @ z.T)[np.triu_indices(len(texts), 1)]


@pytest.mark.parametrize(("size", "changes"), SHAPES)
def test_it_starts_as_a_static_student(start: Path, size: str, changes: dict[str, object]) -> None:
    texts = ROWS["text"][::37]

    def agreement(model: SpectraSentenceTransformer) -> float:
        z = model.encode(texts, normalize_embeddings=True)
        return float(np.corrcoef((z @ z.T)[np.triu_indices(len(texts), 1)], wanted(start, texts))[0, 1])

    model = fresh(start, size, **changes)
    before = agreement(model)
    begin_with_words(model, str(start), ROWS)
    assert agreement(model) > max(0.85, before + 0.3)


def test_vectors_are_in_the_sources_own_axes(start: Path) -> None:
    model = fresh(start, "nexus-mini", semantic_dims=[32, 16])
    begin_with_words(model, str(start), ROWS)
    texts = [word for word in WORDS if len(word) > 2]
    theirs = open_teacher(start).encode(texts, "text")
    ours = model.encode(texts, normalize_embeddings=True)
    theirs = theirs - theirs.mean(0)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(theirs, axis=1)
    assert np.median(cosines) > 0.8


def test_rows_are_equally_long_and_padding_is_zero(start: Path) -> None:
    model = fresh(start, "small")
    begin_with_words(model, str(start), ROWS)
    table = model.spectra.encoder.embeddings.tokens.weight
    lengths = table.norm(dim=1)
    assert lengths[0] == 0
    torch.testing.assert_close(lengths[1:], torch.full_like(lengths[1:], lengths[1].item()))
    assert torch.all(model.spectra.encoder.layers[-1].ffn_norm.weight[:-1] == 1)
    assert model.spectra.encoder.layers[-1].ffn_norm.weight[-1] == 0


def test_what_it_cannot_start_from(start: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.token_vectors: pooling cls takes no mean"):
        begin_with_words(fresh(start, "small", pooling="cls"), str(start), ROWS)
    with pytest.raises(UsageError, match="pooling mean_max"):
        begin_with_words(fresh(start, "small", pooling="mean_max"), str(start), ROWS)
    with pytest.raises(UsageError, match=r"model\.start has learned words"):
        train(load_recipe(None, [f"model.start={start}", f"model.token_vectors={start}", "data.train=python:stdlib",
                                 "data.limit=200"]))  # fmt: skip


def test_states_have_no_mean(start: Path) -> None:
    model = fresh(start, "mini")
    rows = ROWS.select(range(100))
    begin_with_words(model, str(start), rows)
    z = model.encode(list(rows["text"]), normalize_embeddings=False)
    assert np.linalg.norm(z.mean(0)) < 0.05 * np.linalg.norm(z, axis=1).mean()


def test_a_source_with_equal_vectors_is_refused(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    same = np.ones((1, 32)) / 32**0.5
    monkeypatch.setattr(Teacher, "encode", lambda self, texts, *_: same.repeat(len(texts), 0).astype(np.float32))
    with pytest.raises(SpectraError, match=r"gives the same vector for all \d+ pieces"):
        begin_with_words(fresh(start, "small"), str(start), ROWS)


def test_a_run_without_teachers_resumes_without_the_source(start: Path, tmp_path: Path) -> None:
    rows = [{"anchor": f"{a} {b}", "positive": f"{b} {a}"} for a in WORDS[:7] for b in WORDS[8:16]]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = tmp_path / "source"
    shutil.copytree(start, source)
    run = load_recipe(None, [
        f"output={tmp_path / 'runs'}", "name=run", "model.size=small", f"model.tokenizer={start}",
        f"model.token_vectors={source}", f"data.train={tmp_path / 'pairs.jsonl'}", "data.dev_rows=0", "train.batch=8",
        "train.max_steps=2", "train.evaluate_every=2", "train.checkpoint_every=2",
    ])  # fmt: skip
    first = train(run)
    shutil.rmtree(source)
    more = train(load_recipe(first.folder / "recipe.yaml", ["train.max_steps=3"]), resume=first.folder)
    assert more.first_step == 2 and more.steps == 3


def test_a_resumed_run_ends_bit_identical(start: Path, tmp_path: Path) -> None:
    rows = [{"anchor": f"{a} {b}", "positive": f"{b} {a}"} for a in WORDS[:7] for b in WORDS[8:16]]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    whole = train(load_recipe(None, [
        f"output={tmp_path / 'runs'}", "name=run", "model.size=small", f"model.tokenizer={start}",
        f"model.token_vectors={start}", f"distill.teachers=[{start}]", f"data.train={tmp_path / 'pairs.jsonl'}",
        "data.dev_rows=8", "train.batch=8", "train.epochs=1", "train.checkpoint_every=2", "train.evaluate_every=2",
        "train.precision=fp32", "train.keep_checkpoints=99",
    ]))  # fmt: skip
    model = whole.folder / "model"
    before = load_file(model / "model.safetensors")
    shutil.rmtree(model)
    for step in (4, 6):
        shutil.rmtree(whole.folder / "checkpoints" / f"step-{step}")
    resumed = train(None, resume=whole.folder)
    assert resumed.first_step == 2 and resumed.steps == 6
    torch.testing.assert_close(load_file(model / "model.safetensors"), before, rtol=0, atol=0)


def test_axes_are_orthonormal_and_lead() -> None:
    x = np.random.default_rng(0).normal(size=(200, 6)) * [9, 1, 5, 1, 1, 1]
    axes = principal_axes(x, 2)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-12)
    assert abs(axes[0, 0]) > 0.99 and abs(axes[2, 1]) > 0.98
