"""`spectra distill` from end to end, and the static student against its formula."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sklearn.decomposition import PCA
from typer.testing import CliRunner

import spectra_nsa as sp
from spectra_nsa.cli.main import app
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.models.static import SMOOTH, static_model, token_vectors
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.workflows.distill.student import student_recipe
from tests.builders import WORDS, bert_folder


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "teacher").mkdir()
    return bert_folder(tmp_path / "teacher", num_hidden_layers=4)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rows = [{"anchor": f"{a} {b}", "positive": f"{b} {a}"} for a in WORDS[:7] for b in WORDS[8:16]]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "pairs.jsonl"


def spectra(*words: object) -> dict[str, Any]:
    run = CliRunner().invoke(app, [*map(str, words), "--json"], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_a_student_with_layers(teacher: Path, pairs: Path, tmp_path: Path) -> None:
    words = ["distill", teacher, pairs, "--output", tmp_path / "student", "train.batch=8", "train.epochs=3"]
    plan = spectra(*words, "--dry-run")
    assert plan["layers"] == 2 and plan["terms"] == ["distill_embedding", "distill_similarity"]
    assert plan["teachers"][0]["to_encode"] == plan["teachers"][0]["texts"] > 80
    assert not (tmp_path / "student").exists() and not (tmp_path / "cache").exists()
    facts = spectra(*words)
    assert facts["held_out"] and facts["agreement"] > 0.5 and facts["dev"]["metric"] == "dev_ndcg@10"
    assert facts["parameters"]["student"] < facts["parameters"]["teacher"] and facts["speed"] > 0
    student = sp.load(facts["model"])
    assert student.spectra.config.num_hidden_layers == 2
    assert facts["layers"] == student_layers(tmp_path / "student") and len(facts["layers"]) == 2
    words[4] = tmp_path / "other"
    assert spectra(*words, "--dry-run")["teachers"][0]["to_encode"] == 0


def student_layers(run: Path) -> list[int] | None:
    return load_recipe(run / "recipe.yaml").model.keep_layers


def test_layers_asked_for_twice_and_folders_in_use_are_refused(teacher: Path, pairs: Path, tmp_path: Path) -> None:
    words = ["distill", str(teacher), str(pairs), "--dry-run", "--output"]
    (tmp_path / "used" / "model").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for more, said in (
        (["free", "--layers", "2", "model.keep_layers=[0, 1, 3]"], "contradict each other"),
        (["free", "--layers", "2", "model.keep_layers=null"], "contradict each other"),
        (["used"], "already holds a model or a run"),
        (["file"], "is a file"),
        (["free", "loss.terms.triplet.weight=1"], "needs hard negatives"),
    ):
        run = CliRunner().invoke(app, [*words, str(tmp_path / more[0]), *more[1:]])
        assert said in str(run.exception), more
    given = CliRunner().invoke(app, [*words, str(tmp_path / "free"), "model.keep_layers=[0, 1, 3]"])
    assert given.exit_code == 0 and "student of 3 layers" in given.stdout


def test_figures_for_people(teacher: Path, pairs: Path, tmp_path: Path) -> None:
    words = ["distill", str(teacher), str(pairs), "--static", "--dim", "8", "-o", str(tmp_path / "static")]
    run = CliRunner().invoke(app, words, catch_exceptions=False)
    assert run.exit_code == 0
    for said in ("× the teacher's", "agreement", "dev_ndcg@10", f"model: {tmp_path / 'static' / 'model'}"):
        assert said in run.stdout
    again = CliRunner().invoke(app, [*words, "--dry-run"])
    assert "already holds a model or a run" in str(again.exception), "what would be refused is refused in a dry run too"
    plan = CliRunner().invoke(app, [*words[:3], "--layers", "1", "--dry-run"], catch_exceptions=False).stdout
    assert "to encode; 32 dimensions each" in plan and "Nothing was encoded or trained" in plan


def test_a_static_student_is_planned_and_takes_columns(teacher: Path, tmp_path: Path) -> None:
    rows = [{"q": f"open {a}", "d": f"read {a} {b}", "anchor": "x", "positive": "y"} for a in WORDS for b in WORDS[:4]]
    (tmp_path / "named.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = tmp_path / "static"
    words = ["distill", str(teacher), str(tmp_path / "named.jsonl"), "--static", "--dim", "8", "-o", str(folder)]
    words += ["data.columns={anchor: q, positive: d}", "data.limit=40", "data.dev_rows=4", "--json"]
    plan = json.loads(CliRunner().invoke(app, [*words, "--dry-run"], catch_exceptions=False).stdout)
    vocabulary = open_teacher(teacher).model.tokenizer.get_vocab()
    assert (plan["width"], plan["dev_rows"], plan["bytes"]) == (8, 4, 4 * 8 * (max(vocabulary.values()) + 1))
    assert plan["tokens"] == len(vocabulary) - 5 and plan["rows"] <= 36 and not folder.exists()
    assert "Nothing was encoded or written" in CliRunner().invoke(app, [*words[:-1], "--dry-run"]).stdout
    made = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert made["model"] == str(folder / "model") and made["dev"]["metric"] == "dev_ndcg@10"
    for value in ("train.lr=1", "loss.temperature=1", "datas=1"):
        assert "--static trains nothing" in str(CliRunner().invoke(app, [*words, value]).exception)


def test_values_win_over_flags(teacher: Path, tmp_path: Path) -> None:
    recipe = student_recipe(
        str(teacher), "pairs.jsonl", layers=1, output=tmp_path / "a" / "b",
        values=["train.lr=1e-3", "loss.terms.semantic.weight=0.5", "distill.teachers=[one, two]"],
    )  # fmt: skip
    assert recipe.name == "b" and recipe.output == str(tmp_path / "a") and recipe.model.keep_layers == [3]
    assert recipe.train.lr == 1e-3 and recipe.distill.teachers == ["one", "two"]
    assert recipe.loss.terms.semantic.weight == 0.5 and recipe.loss.terms.bridge.weight == 0
    assert not recipe.loss.terms.bridge.train_encoder  # a head alone, should it be turned on
    with pytest.raises(UsageError, match="has 4 layers"):
        student_recipe(str(teacher), "pairs.jsonl", layers=5, output=tmp_path)
    experts = student_recipe(str(teacher), "pairs.jsonl", output=tmp_path / "e", values=["model.ffn=moe"])
    assert experts.loss.terms.router_balance.weight > 0 == experts.loss.terms.semantic.weight


def test_a_static_student_is_the_weighted_mean_of_its_tokens(teacher: Path, tmp_path: Path) -> None:
    texts = ["open the file", "read the list", "sort the file"]
    opened = open_teacher(teacher)
    student = static_model(opened, [texts], 6)
    student.save_pretrained(str(tmp_path / "static"))
    saved = SentenceTransformer(str(tmp_path / "static"), device="cpu")
    tokenizer = opened.model.tokenizer
    vocabulary = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    alone = np.stack([opened.model[0].model(  # type: ignore[union-attr, operator]
        **tokenizer(word, return_tensors="pt").to("cpu")).embedding[0].detach().numpy() for word in WORDS])  # fmt: skip
    ours = token_vectors(opened, tokenizer.convert_tokens_to_ids(WORDS))
    np.testing.assert_allclose(ours, alone, atol=1e-5)
    parts = PCA(6, svd_solver="full").fit_transform(token_vectors(opened, vocabulary))
    counts = Counter(number for text in texts for number in tokenizer(text, add_special_tokens=False)["input_ids"])
    total = sum(counts.values()) + len(vocabulary)
    rows = {number: part * SMOOTH / (SMOOTH + (counts[number] + 1) / total)
            for number, part in zip(vocabulary, parts, strict=True)}  # fmt: skip
    wanted = []
    for text in texts:
        mean = np.mean([rows[number] for number in tokenizer(text, add_special_tokens=False)["input_ids"]], axis=0)
        wanted.append(mean / np.linalg.norm(mean))
    found = saved.encode(texts)
    np.testing.assert_allclose(found @ found.T, np.stack(wanted) @ np.stack(wanted).T, atol=1e-4)


def test_a_static_student_is_no_wider_than_its_teacher(teacher: Path) -> None:
    with pytest.raises(UsageError, match="choose 1 to 32"):
        static_model(open_teacher(teacher), [["open"]], 33)


def test_a_student_of_another_shape(teacher: Path, pairs: Path, tmp_path: Path) -> None:
    keys = ["model.size=small", f"model.tokenizer={teacher}"]
    words = ["distill", teacher, pairs, *keys, "train.batch=8", "loss.terms.entity.weight=1"]
    told = CliRunner().invoke(app, [*map(str, words), "--dry-run"], catch_exceptions=False)
    assert "student of a different shape: " in told.stdout
    assert re.search(r": (\d+) vocabulary pieces, \1 of them to encode", told.stdout)
    assert "loss: entity, distill_embedding, distill_similarity" in told.stdout
    facts = spectra(*words, "--output", tmp_path / "student", "train.max_steps=2")
    assert facts["layers"] is None and sp.load(facts["model"]).spectra.config.hidden_size == 128
    refused = CliRunner().invoke(app, [*map(str, words), "model.pooling=cls", "--dry-run"])
    assert isinstance(refused.exception, UsageError) and "Set model.pooling=mean" in str(refused.exception)


def test_a_teacher_without_layers_has_students_of_other_shapes(teacher: Path, pairs: Path, tmp_path: Path) -> None:
    facts = spectra("distill", teacher, pairs, "--static", "--dim", "8", "--output", tmp_path / "static")
    keys = ["model.size=small", f"model.tokenizer={teacher}", "train.batch=8", "train.max_steps=2"]
    again = spectra("distill", facts["model"], pairs, *keys, "--output", tmp_path / "student")
    assert again["layers"] is None and again["steps"] == 2


def test_another_start_keeps_its_layers(teacher: Path, pairs: Path, tmp_path: Path) -> None:
    start = bert_folder(tmp_path, num_hidden_layers=3)
    recipe = student_recipe(str(teacher), str(pairs), output=tmp_path / "run", values=[f"model.start={start}"])
    assert recipe.model.keep_layers is None and recipe.model.token_vectors is None


@pytest.mark.parametrize("static", [False, True])
def test_broken_rows_are_quarantined_and_counted(teacher: Path, pairs: Path, tmp_path: Path, static: bool) -> None:
    pairs.write_text(pairs.read_text() + '\n{"anchor": "open"\n{"anchor": "open", "positive": null}\n')
    words = ["distill", teacher, pairs, "--output", tmp_path / "run", *(["--static", "--dim", "8"] if static else [])]
    assert spectra(*words, "--dry-run")["quarantined"] == 2
    assert "2 quarantined" in CliRunner().invoke(app, [*map(str, words), "--dry-run"], catch_exceptions=False).stdout
    assert spectra(*words, *([] if static else ["--max-steps", "2"]))["quarantined"] == 2
    (file,) = (tmp_path / "run" / "quarantine").iterdir()
    assert len(file.read_text().splitlines()) == 2


def test_stopped_before_its_first_step_it_names_the_command_that_resumes(
    teacher: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    words = ["distill", str(teacher), str(pairs), "-o", str(tmp_path / "run"), "--max-steps", "2"]
    with monkeypatch.context() as patch:
        patch.setattr("spectra_nsa.training.teacher.lookup.teacher_vectors", interrupt)
        run = CliRunner().invoke(app, words)
    assert run.exit_code == 130 and f"spectra distill --resume {tmp_path / 'run'}" in run.stderr
    again = CliRunner().invoke(app, words)
    assert f"spectra train --resume {tmp_path / 'run'}" in str(again.exception)
    facts = spectra("distill", "--resume", tmp_path / "run")
    assert facts["steps"] == 2 and facts["teacher"] == str(teacher) and facts["speed"] > 0


def test_resuming_takes_nothing_else(teacher: Path, pairs: Path, tmp_path: Path) -> None:
    for words, said in (
        ([str(teacher), "--resume", str(tmp_path)], "takes no other option"),
        (["--resume", str(tmp_path), "--max-steps", "3"], "takes no other option"),
        (["--resume", str(tmp_path)], "neither a run"),
        ([str(teacher)], "TEACHER SOURCE"),
    ):
        refused = CliRunner().invoke(app, ["distill", *words])
        assert isinstance(refused.exception, SpectraError) and said in str(refused.exception)
    run = ["train", "--model", str(teacher), "--data", str(pairs), f"output={tmp_path}", "name=plain"]
    spectra(*run, "train.max_steps=1", "train.batch=8")
    refused = CliRunner().invoke(app, ["distill", "--resume", str(tmp_path / "plain")])
    assert "has no teacher. Resume it with: spectra train" in str(refused.exception)
