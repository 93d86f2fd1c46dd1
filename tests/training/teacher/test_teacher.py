"""Teachers' vectors are computed once, runs with teachers resume exactly, and widths may differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

import spectra_nsa as sp
from spectra_nsa.config.recipe import Recipe, load_recipe
from spectra_nsa.core.cache import cache_folder
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.models.teacher import Teacher, open_teacher
from spectra_nsa.training.checks import check_terms
from spectra_nsa.training.data.rows import load_training_data
from spectra_nsa.training.init.layers import best_layers, keep_layers
from spectra_nsa.training.init.start import open_start
from spectra_nsa.training.run import train
from spectra_nsa.training.teacher import vectors as teachers
from spectra_nsa.training.teacher.lookup import DistillationSource, open_distillation, read_scores
from spectra_nsa.training.teacher.vectors import plan_vectors, teacher_vectors
from tests.builders import WORDS, bert_folder

TEXTS = [f"{a} {b}" for a in WORDS[:6] for b in WORDS[6:12]]
TWISTED = [f"{b} {a}" for a in WORDS[:7] for b in WORDS[8:16]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(teachers, "PART", 16)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("wide"), hidden_size=48, num_hidden_layers=4, seed=1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts each call to a teacher encoded."""
    found: list[int] = []
    encode = Teacher.encode

    def counted(self: Teacher, texts: Any, *rest: str) -> Any:
        found.append(len(texts))
        return encode(self, texts, *rest)

    monkeypatch.setattr(Teacher, "encode", counted)
    return found


def table(texts: list[str] = TEXTS) -> Dataset:
    return Dataset.from_dict({"anchor": texts, "positive": texts[::-1]})


def test_each_text_is_encoded_once_and_looked_up_again(start: Path, calls: list[int]) -> None:
    teacher = open_teacher(start)
    assert plan_vectors(teacher, table(), ["anchor", "positive"])["to_encode"] == len(TEXTS)
    found = teacher_vectors(teacher, table(), ["anchor", "positive"])
    assert calls == [16, 16, 4]
    wanted = sp.warm_start(start).encode(TEXTS)
    np.testing.assert_allclose(found.of(TEXTS, "positive"), wanted, atol=2e-2)
    again = teacher_vectors(teacher, table(TEXTS[::-1]), ["anchor", "positive"])
    assert len(calls) == 3 and plan_vectors(teacher, table(), ["anchor"])["to_encode"] == 0
    np.testing.assert_array_equal(again.of(TEXTS, "anchor"), found.of(TEXTS, "anchor"))
    with pytest.raises(SpectraError, match="no vector in the cache"):
        found.of(["never seen"], "anchor")


def test_only_added_texts_are_encoded(start: Path, calls: list[int]) -> None:
    teacher, columns = open_teacher(start), ["anchor"]
    some = teacher_vectors(teacher, table(TEXTS[:20]), columns)
    assert sum(calls) == 20 and plan_vectors(teacher, table(), columns)["to_encode"] == len(TEXTS) - 20
    found = teacher_vectors(teacher, table(), columns)
    assert sum(calls) == len(TEXTS)
    np.testing.assert_array_equal(found.of(TEXTS[:20], "anchor"), some.of(TEXTS[:20], "anchor"))
    np.testing.assert_allclose(found.of(TEXTS, "anchor"), teacher.encode(TEXTS, "anchor"), atol=2e-2)
    calls.clear()
    fewer = teacher_vectors(teacher, table(TEXTS[5:9]), columns)
    assert not calls
    np.testing.assert_array_equal(fewer.of(TEXTS[5:9], "anchor"), found.of(TEXTS[5:9], "anchor"))


def test_different_weights_or_prompts_are_a_different_entry(start: Path, tmp_path: Path, calls: list[int]) -> None:
    teacher_vectors(open_teacher(start), table(), ["anchor"])
    copied = shutil.copytree(start, tmp_path / "copy")
    teacher_vectors(open_teacher(copied), table(), ["anchor"])
    assert sum(calls) == len(TEXTS)  # the same files elsewhere
    weights = load_file(copied / "model.safetensors")
    from safetensors.torch import save_file

    save_file({name: value * 1.01 for name, value in weights.items()}, copied / "model.safetensors", {"format": "pt"})
    teacher_vectors(open_teacher(copied), table(), ["anchor"])
    assert sum(calls) == 2 * len(TEXTS)
    prompted = bert_folder(tmp_path / "prompted", prompts={"query": "query a ", "document": ""})
    both = teacher_vectors(open_teacher(prompted), table(), ["anchor", "positive"])
    assert sum(calls) == 4 * len(TEXTS)  # each text in two manners
    assert not np.allclose(both.of(TEXTS[:1], "anchor"), both.of(TEXTS[:1], "positive"))


def test_encoding_that_was_stopped_resumes(start: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = open_teacher(start)
    counted = Teacher.encode

    def stopping(self: Teacher, texts: Any, *rest: str) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        return counted(self, texts, *rest)

    monkeypatch.setattr(Teacher, "encode", stopping)
    with pytest.raises(KeyboardInterrupt):
        teacher_vectors(teacher, table(), ["anchor"])
    monkeypatch.setattr(Teacher, "encode", counted)
    assert plan_vectors(teacher, table(), ["anchor"])["to_encode"] == 4
    found = teacher_vectors(teacher, table(), ["anchor"])
    assert calls == [16, 16, 4]
    np.testing.assert_allclose(found.of(TEXTS, "anchor"), teacher.encode(TEXTS, "anchor"), atol=2e-2)
    assert not list(cache_folder("teachers").glob(".*"))


def test_two_runs_may_encode_the_same_texts_at_once(
    start: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = open_teacher(start)
    counted = Teacher.encode

    def overtaken(self: Teacher, texts: Any, *rest: str) -> Any:
        vectors = counted(self, texts, *rest)
        if len(calls) == 3:  # the last part: the other run now finds all of them and finishes first
            monkeypatch.setattr(Teacher, "encode", counted)
            teacher_vectors(teacher, table(), ["anchor"])
        return vectors

    monkeypatch.setattr(Teacher, "encode", overtaken)
    found = teacher_vectors(teacher, table(), ["anchor"])
    np.testing.assert_allclose(found.of(TEXTS, "anchor"), teacher.encode(TEXTS, "anchor"), atol=2e-2)


def test_a_truncated_entry_is_computed_again(start: Path, calls: list[int]) -> None:
    teacher_vectors(open_teacher(start), table(), ["anchor"])
    (file,) = cache_folder("teachers").glob("*/vectors.f16")
    file.write_bytes(file.read_bytes()[:-2])
    teacher_vectors(open_teacher(start), table(), ["anchor"])
    assert sum(calls) == 2 * len(TEXTS)


@pytest.fixture
def recipe(tmp_path: Path, start: Path) -> Callable[..., Recipe]:
    rows = [{"anchor": f"{a} {b}", "positive": f"{b} {a}"} for a in WORDS[:7] for b in WORDS[8:16]]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = [
        f"output={tmp_path / 'runs'}", "name=run", f"model.start={start}", f"data.train={tmp_path / 'pairs.jsonl'}",
        "data.dev_rows=8", "train.batch=8", "train.checkpoint_every=2", "train.evaluate_every=2", "train.log_every=1",
        "train.lr=1e-3", "train.precision=fp32", "train.keep_checkpoints=99",
    ]  # fmt: skip
    return lambda *more: load_recipe(None, [*base, *more])


def logged(folder: Path, key: str) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


def test_a_resumed_run_with_teachers_ends_bit_identical(recipe: Callable[..., Recipe], start: Path, wide: Path) -> None:
    whole = train(recipe(f"distill.teachers=[{start}, {wide}]", "distill.weights=[1, 3]", "model.dropout=0.1",
                         "loss.terms.semantic.weight=0"))  # fmt: skip
    before = load_file(whole.folder / "model" / "model.safetensors")
    losses = logged(whole.folder, "distill_embedding")
    assert len(losses) == 6 and logged(whole.folder, "distill_similarity_32")
    shutil.rmtree(whole.folder / "model")
    for step in (4, 6):
        shutil.rmtree(whole.folder / "checkpoints" / f"step-{step}")
    resumed = train(None, resume=whole.folder)
    assert resumed.first_step == 2 and resumed.steps == 6
    torch.testing.assert_close(load_file(whole.folder / "model" / "model.safetensors"), before, rtol=0, atol=0)
    assert logged(whole.folder, "distill_embedding") == losses


def test_single_texts_train_a_student_with_only_a_teacher(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    with pytest.raises(SpectraError, match="texts; training needs pairs"):
        train(recipe(f"data.train={tmp_path / 'texts.jsonl'}"))
    start = recipe().model.start
    run = recipe("name=texts", f"data.train={tmp_path / 'texts.jsonl'}", f"distill.teachers=[{start}]",
                 "model.keep_layers=[1]", "train.epochs=4")  # fmt: skip
    result = train(run)
    losses = logged(result.folder, "distill_embedding")
    assert losses[-1] < losses[0] and not logged(result.folder, "semantic_32")
    assert logged(result.folder, "health_rank") and not logged(result.folder, "health_alignment")
    assert sp.load(result.folder / "model").spectra.config.num_hidden_layers == 1


def teaching(recipe: Recipe) -> tuple[DistillationSource, Any]:
    whole = recipe.data.model_copy(update={"dev_rows": 0})
    data = load_training_data(whole, seed=0, quarantine=None, distill=recipe.distill)
    student = open_start(recipe)
    found = open_distillation(recipe, data, student)
    assert found is not None
    return found, student


def test_several_teachers_are_one_with_their_mean_cosines(
    recipe: Callable[..., Recipe], start: Path, wide: Path
) -> None:
    found, _ = teaching(recipe(f"distill.teachers=[{start}, {wide}]", "distill.weights=[1, 3]"))
    vectors = found.vectors(TWISTED, "positive")
    each = [open_teacher(name).encode(TWISTED, "positive") for name in (start, wide)]
    np.testing.assert_allclose(vectors @ vectors.T, 0.25 * each[0] @ each[0].T + 0.75 * each[1] @ each[1].T, atol=2e-2)


def test_a_narrower_target_keeps_the_cosines_that_fit_and_the_students_axes(
    recipe: Callable[..., Recipe], wide: Path
) -> None:
    found, student = teaching(recipe(f"distill.teachers=[{wide}]"))
    x = found.vectors(TWISTED, "positive").astype(np.float64)
    assert found.map_ED is not None and found.map_ED.shape == (48, 32)
    np.testing.assert_allclose(found.map_ED.T @ found.map_ED, np.eye(32), atol=1e-5)
    best = np.linalg.svd(x, compute_uv=False)
    kept = x @ found.map_ED
    assert np.square(x @ x.T - kept @ kept.T).sum() <= np.square(best[32:] ** 2).sum() * 1.01 + 1e-6
    own = student.encode_document(TWISTED)
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0]
    assert (kept * own).sum() > (kept @ turned * own).sum()


def test_a_wider_target_has_the_teachers_cosines_and_an_equal_one_the_teachers_vectors(
    recipe: Callable[..., Recipe], start: Path, wide: Path
) -> None:
    found, _ = teaching(recipe(f"model.start={wide}", f"distill.teachers=[{start}]"))
    brought = found.inputs([{"anchor": f"{WORDS[0]} {b}", "positive": f"{b} {WORDS[0]}"} for b in WORDS[8:12]],
                            ["anchor", "positive"])  # fmt: skip
    assert brought["anchor_target"].shape == (4, 48)
    cosines = [brought[f"anchor_{name}"] @ brought[f"anchor_{name}"].T for name in ("target", "teacher")]
    torch.testing.assert_close(*cosines, rtol=1e-4, atol=1e-4)
    same, _ = teaching(recipe(f"distill.teachers=[{start}]"))
    assert same.map_ED is None


def test_layers_are_copied_exactly(wide: Path, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    teacher, student = sp.warm_start(wide), open_start(recipe(f"model.start={wide}", "model.keep_layers=[0, 2]"))
    before, after = teacher.spectra.state_dict(), student.spectra.state_dict()
    assert student.spectra.config.num_hidden_layers == 2 and len(after) < len(before)
    for name, value in after.items():
        name = name.replace("encoder.layers.1.", "encoder.layers.2.")
        if not name.startswith(("ranking", "anchors", "bridge", "entity", "fusion", "anomaly")):  # random starts
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    student.save_pretrained(str(tmp_path / "student"))
    saved = sp.load(tmp_path / "student")
    np.testing.assert_allclose(saved.encode(TEXTS[:3]), student.encode(TEXTS[:3]), atol=1e-6)
    for wrong in ([2, 0], [0, 0], [4]):
        with pytest.raises(UsageError, match="numbered 0 to 3"):
            keep_layers(sp.warm_start(wide), wrong)


def test_the_least_useful_layers_are_dropped(wide: Path) -> None:
    model = sp.warm_start(wide)
    before = model.encode(TEXTS[:6])
    with torch.no_grad():  # layer 2 of four gives back what it got, nearly
        for name, weight in model.spectra.encoder.layers[2].named_parameters():
            if name in ("attention.out.weight", "attention.out.bias", "ffn.down.weight", "ffn.down.bias"):
                weight.zero_()
    whole = model.encode(TEXTS[:6])
    assert not np.allclose(before, whole, atol=1e-3), "the names of the weights above are those of the block"
    kept, near = best_layers(model, 3, TEXTS)
    assert kept == [0, 1, 3] and near > 0.95
    np.testing.assert_array_equal(model.encode(TEXTS[:6]), whole)
    two, less = best_layers(model, 2, TEXTS)
    assert len(two) == 2 and two == sorted(two) and set(two) < {0, 1, 3} and less < near
    keep_layers(model, two)  # untrained, what was told of them is so
    one = sp.warm_start(wide)
    assert best_layers(one, 4, TEXTS) == ([0, 1, 2, 3], 1.0)
    with pytest.raises(UsageError, match="has 4 layers"):
        best_layers(one, 5, TEXTS)


def test_given_scores_are_looked_up_and_checked(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    rows = [{"anchor": f"a{i}", "positive": f"p{i}", "negative": f"n{i}", "good": i / 40, "bad": -i / 40}
            for i in range(40)]  # fmt: skip
    (tmp_path / "mined.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mined = f"data.train={tmp_path / 'mined.jsonl'}"
    base = recipe(mined, "distill.scores=[good, bad]", "loss.terms.margin_mse.weight=9")
    found, _ = teaching(base)
    brought = found.inputs(rows[3:5], ["anchor", "positive", "negative"])
    assert set(brought) == {"positive_margin_score", "negative_margin_score"}
    torch.testing.assert_close(brought["negative_margin_score"], torch.tensor([-3 / 40, -4 / 40]))
    assert logged(train(base).folder, "margin_mse")
    wild = Dataset.from_list([{**row, "good": 10.0} for row in rows])
    with pytest.raises(SpectraError, match=r"from -1 to 1; these go from .* to 10"):
        read_scores(wild, ["anchor", "positive", "negative"], ["good", "bad"])
    rounded = read_scores(Dataset.from_list([rows[0] | {"good": 1.0000002}]), ["anchor", "positive"], ["good"])
    assert rounded.values.tolist() == [1.0], "a rounding error beyond the end"
    with pytest.raises(SpectraError, match="need 2"):
        read_scores(wild, ["anchor", "positive", "negative"], ["good", "bad", "bad"])
    with pytest.raises(UsageError, match="Did you mean 'good'"):
        teaching(recipe(mined, "distill.scores=[goood, bad]"))


def test_pairs_that_are_scored_differently_are_counted_and_the_first_score_is_used() -> None:
    scores = [("a", "p", 0.5), ("b", "p", 0.5), ("a", "p", 0.7), ("b", "p", 0.5001), ("a", "p", 0.9)]
    rows = Dataset.from_list([dict(zip(("anchor", "positive", "score"), row, strict=True)) for row in scores])
    found = read_scores(rows, ["anchor", "positive"], ["score"])
    assert found.contradictory == 1, "0.5001 differs from 0.5 by rounding"
    np.testing.assert_allclose(found.of(["a", "b"], ["p", "p"]), [0.5, 0.5])


def test_scores_in_lists_are_read_as_mining_leaves_them(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    rows = [{"anchor": f"a{i}", "positive": f"p{i}", "negative": f"n{i}", "scores": [i / 40, -i / 40]}
            for i in range(40)]  # fmt: skip
    (tmp_path / "mined.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = recipe(f"data.train={tmp_path / 'mined.jsonl'}", "distill.scores=[scores]")
    brought = teaching(base)[0].inputs(rows[3:5], ["anchor", "positive", "negative"])
    torch.testing.assert_close(brought["positive_margin_score"], torch.tensor([3 / 40, 4 / 40]))
    torch.testing.assert_close(brought["negative_margin_score"], torch.tensor([-3 / 40, -4 / 40]))
    columns = ["anchor", "positive", "negative", "negative_2"]
    with pytest.raises(SpectraError, match="needs 3 scores in each row"):
        read_scores(Dataset.from_list([{**row, "negative_2": "x"} for row in rows]), columns, ["scores"])


def test_scores_and_their_term_belong_together() -> None:
    with pytest.raises(UsageError, match=r"distill\.scores="):
        check_terms(load_recipe(None, ["loss.terms.margin_mse.weight=1"]))
    with pytest.raises(UsageError, match=r"margin_mse\.weight=1"):
        check_terms(load_recipe(None, ["distill.scores=[scores]"]))
    check_terms(load_recipe(None, ["distill.scores=[scores]", "loss.terms.margin_mse.weight=1"]))


def test_weights_belong_to_teachers() -> None:
    with pytest.raises(UsageError, match="2 weights for 1 teachers"):
        load_recipe(None, ["distill.teachers=[a]", "distill.weights=[1, 2]"])
