"""The same text is encoded, trained on, mined, distilled, measured and exported with the same prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import spectra_nsa as sp
from spectra_nsa.config.recipe import load_recipe
from spectra_nsa.evaluation.open import open_system
from spectra_nsa.evaluation.systems import DenseSystem
from spectra_nsa.models.open import open_encoder
from spectra_nsa.models.prompts import column_prompts, role_prompt, with_roles
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.training.data.rows import load_training_data
from spectra_nsa.training.init.rarity import fit_rarity
from spectra_nsa.training.jobs.batches import training_batches
from spectra_nsa.training.monitor.health import HealthSample
from spectra_nsa.workflows.mine.scorers import encode_block, find_scorer
from spectra_nsa.workflows.mine.scorers import open_encoder as open_scorer
from tests.builders import bert_folder

QUERY, DOCUMENT = "open the file", "read a socket"
E5 = ({"query": "query: ", "passage": "passage: "}, None, {"query": "query: ", "document": "passage: "})
ONLY_DEFAULT = ({"all": "the text "}, "all", {"query": "the text ", "document": "the text "})


@pytest.mark.parametrize(
    ("prompts", "default", "query", "document"),
    [
        ({}, None, "", ""),
        ({"query": "", "document": ""}, None, "", ""),
        ({"query": "q: ", "document": "", "passage": "p: "}, None, "q: ", "p: "),
        ({"query": "q: ", "document": "d: ", "passage": "p: "}, None, "q: ", "d: "),
        ({"query": None, "corpus": "c: "}, None, "", "c: "),
        ({"query": "q: ", "all": "a: "}, "all", "q: ", "a: "),
        ({"query": "q: "}, "query", "q: ", ""),
        ({"passage": "p: "}, "passage", "", "p: "),
    ],
)
def test_an_empty_prompt_hides_no_other(prompts: Any, default: str | None, query: str, document: str) -> None:
    assert role_prompt(prompts, default, "query") == query and role_prompt(prompts, default, "document") == document
    resolved = with_roles(prompts, default)
    assert (resolved["query"], resolved["document"]) == (query, document)
    assert with_roles(resolved, default) == resolved


def test_prompts_follow_the_columns() -> None:
    prompts = {"query": "query: ", "document": "passage: ", "other": "x"}
    assert column_prompts(prompts, ["anchor", "positive", "negative"]) == {
        "anchor": "query: ", "positive": "passage: ", "negative": "passage: ",
    }  # fmt: skip
    assert column_prompts(prompts, ["sentence1", "sentence2", "text"]) == {
        "sentence1": "query: ", "sentence2": "query: ", "text": "passage: ",
    }  # fmt: skip
    assert column_prompts({"query": "", "document": ""}, ["anchor", "positive"]) == {}


@pytest.fixture(scope="module", params=[E5, ONLY_DEFAULT], ids=["e5", "default"])
def folder_and_roles(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A folder whose config names only these prompts, and the prompt of each role."""
    prompts, default, roles = request.param
    folder = bert_folder(tmp_path_factory.mktemp("prompted"))
    file = folder / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompts": prompts, "default_prompt_name": default}))
    return folder, roles


@pytest.fixture(scope="module")
def expected(folder_and_roles: tuple[Path, dict[str, str]]) -> dict[str, np.ndarray]:
    """The vector of each role's text, by the library, with the prompt spelled out."""
    folder, roles = folder_and_roles
    stock = SentenceTransformer(str(folder), device="cpu")
    vectors = {role: stock.encode([text], prompt=roles[role]) for role, text in texts_by_role().items()}
    for role, text in texts_by_role().items():
        assert np.abs(stock.encode([text], prompt="") - vectors[role]).max() > 1e-3, "the prompt must show"
    return vectors


def texts_by_role() -> dict[str, str]:
    return {"query": QUERY, "document": DOCUMENT}


def close(found: Any, expected: np.ndarray, atol: float = 1e-5) -> bool:
    return float(np.abs(np.asarray(found) - expected).max()) <= atol


def test_models_encode_with_the_prompts(
    folder_and_roles: tuple[Path, dict[str, str]], expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    warm = sp.warm_start(folder_and_roles[0])
    warm.save_pretrained(str(tmp_path / "saved"))
    sp.export_bert(warm, tmp_path / "exported")
    models: list[Any] = [warm, sp.load(tmp_path / "saved"), open_encoder(tmp_path / "saved")]
    models += [SentenceTransformer(str(tmp_path / name), device="cpu") for name in ("saved", "exported")]
    for model in models:
        assert close(model.encode_query([QUERY]), expected["query"])
        assert close(model.encode_document([DOCUMENT]), expected["document"])
        assert close(model.encode([QUERY]), models[0].encode([QUERY]))
        (hit,) = sp.similar_texts(QUERY, [DOCUMENT], model)
        assert hit.score == pytest.approx(float(expected["query"][0] @ expected["document"][0]), abs=1e-5)


def test_evaluation_mining_and_distillation_use_the_prompts(
    folder_and_roles: tuple[Path, dict[str, str]], expected: dict[str, np.ndarray]
) -> None:
    folder, _ = folder_and_roles
    system = open_system(folder)
    assert isinstance(system, DenseSystem)
    assert close(system.encode_queries([QUERY]), expected["query"])
    assert close(system.encode_documents([DOCUMENT]), expected["document"])
    scorer = open_scorer(find_scorer(str(folder)))
    for role, text in texts_by_role().items():
        assert close(encode_block(scorer, role, [text], sparse=False)["vectors"], expected[role], 0.02)  # bf16
    teacher = open_teacher(folder)
    assert close(teacher.encode([QUERY], "anchor"), expected["query"])
    assert close(teacher.encode([DOCUMENT], "positive"), expected["document"])
    same = teacher.encoding_key("anchor") == teacher.encoding_key("positive")
    assert same == (folder_and_roles[1]["query"] == folder_and_roles[1]["document"])


def test_training_and_health_use_the_prompts(
    folder_and_roles: tuple[Path, dict[str, str]], expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder, roles = folder_and_roles
    lines = [{"anchor": QUERY, "positive": DOCUMENT}, {"anchor": "sort a list", "positive": "write the text"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = load_recipe(None, [f"data.train={tmp_path / 'pairs.jsonl'}", f"model.start={folder}"])
    data = load_training_data(recipe.data, seed=0, quarantine=None)
    model = sp.warm_start(folder)
    made = training_batches(recipe, model, data, tokenize=False)
    batch = made.collator([row for row in made.rows if row["anchor"] == QUERY])
    for column, role in (("anchor", "query"), ("positive", "document")):
        ids = model.tokenizer(roles[role] + texts_by_role()[role])["input_ids"]
        assert batch[f"{column}_input_ids"].tolist() == [ids]
    sample = HealthSample(data, 4, seed=0, precision="fp32")
    sample.anchors, sample.positives = [QUERY], [DOCUMENT]
    measured = sample.measure(model)
    difference = np.square(expected["query"] - expected["document"]).sum()
    assert measured["health_alignment"] == pytest.approx(float(difference), abs=1e-4)
    fit_rarity(model, data.train.select_columns(data.columns))
    shared = [model.tokenizer.convert_tokens_to_ids("the")] if roles["query"] == roles["document"] else []
    idf = model.spectra.entity.prior.idf
    assert all(idf[number] == idf.min() for number in shared), "a prompt is in every text, so it is not rare"
