"""Vectors with NaN or infinity are never ranked, fitted to, learned from or saved: the error counts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerBase
from typer.testing import CliRunner

import spectra_nsa as sp
from spectra_nsa.cli.main import app
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.static import static_model
from spectra_nsa.models.teacher import open_teacher
from spectra_nsa.training.init.layers import best_layers
from spectra_nsa.training.teacher.vectors import teacher_vectors
from spectra_nsa.workflows import search
from spectra_nsa.workflows.fit import fit_anomaly_on, fit_codes_on
from tests.builders import WORDS, bert_folder, set_weight, token_id

TEXTS = ["open a file", "close the socket", "sort the list", "a socket", "read"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model whose vector of the word "socket" is NaN."""
    path = tmp_path_factory.mktemp("broken")
    sp.warm_start(bert_folder(path / "bert")).save_pretrained(str(path / "model"))
    return set_weight(path / "model", "embeddings.tokens.weight", token_id("socket"), float("nan"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_search_ranks_no_nan(folder: Path, tmp_path: Path) -> None:
    model = sp.load(folder)
    with pytest.raises(SpectraError, match="2 of 5 vectors of candidates hold NaN or infinity"):
        sp.similar_texts("open", TEXTS, model)
    with pytest.raises(SpectraError, match="1 of 2 vectors of queries"):
        sp.similar_texts(["open", "socket"], TEXTS[:1], model)
    with pytest.raises(SpectraError, match="model: 2 of 5 vectors of documents"):
        search.cached_documents(model, folder, TEXTS)
    assert not list((tmp_path / "cache").rglob("*.npy"))
    with pytest.raises(SpectraError, match="model: 1 of 1 vectors of queries"):
        search.code_hits(model, folder, "socket", TEXTS[:1], 1, bits=64, candidates=2, scoring="asymmetric")


@pytest.mark.parametrize(
    "command",
    [
        ["search", "{model}", "socket", "--corpus", "{corpus}"],
        ["search", "{model}", "open", "--corpus", "{broken}"],
        ["search", "{model}", "open", "--corpus", "{broken}", "--bits", "64"],
        ["encode", "{model}", "socket", "--output", "{output}"],
        ["encode", "{model}", "socket", "--outputs", "fast", "--output", "{output}"],
        ["similarity", "{model}", "open", "socket"],
    ],
    ids=" ".join,
)
def test_commands_say_so(folder: Path, tmp_path: Path, command: list[str]) -> None:
    files = {"corpus": tmp_path / "a.txt", "broken": tmp_path / "b.txt", "output": tmp_path / "v.npz", "model": folder}
    files["corpus"].write_text("open a file\n")
    files["broken"].write_text("\n".join(TEXTS))
    run = CliRunner().invoke(app, [word.format(**files) for word in command])
    assert isinstance(run.exception, SpectraError) and "hold NaN or infinity" in str(run.exception)
    assert not files["output"].exists()


def test_nothing_is_fitted_to_nan(folder: Path, tmp_path: Path) -> None:
    texts = [f"{a} {b} {c}" for a in WORDS for b in WORDS[6:] for c in WORDS[4:9]][:600]
    count = sum("socket" in text for text in texts)
    for fit in (fit_codes_on, fit_anomaly_on):
        with pytest.raises(SpectraError, match=f"{count} of 600 vectors hold NaN"):
            fit(str(folder), texts, output=tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out").exists()


def test_teachers_do_not_teach_nan(folder: Path) -> None:
    teacher = open_teacher(folder)
    with pytest.raises(SpectraError, match=r"the teacher .*model: 2 of 5 vectors hold NaN"):
        teacher_vectors(teacher, Dataset.from_dict({"text": TEXTS}), ["text"])
    with pytest.raises(SpectraError, match=r"1 of \d+ vectors of tokens hold NaN"):
        static_model(teacher, [TEXTS], 8)
    with pytest.raises(SpectraError, match="2 of 5 vectors hold NaN"):
        best_layers(sp.load(folder), 1, TEXTS)


def test_mining_and_judging_refuse_nan(
    folder: Path, tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerBase, tiny_pairs: Callable[..., Path]
) -> None:
    pairs = tmp_path / "socket.jsonl"
    rows = [{"anchor": f"{word} the file", "positive": f"a {word}"} for word in WORDS[6:12]]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SpectraError, match="1 of 6 vectors of anchors hold NaN"):
        sp.mine(pairs, folder, tmp_path / "mined.jsonl")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(tiny_tokenizer), max_position_embeddings=32, num_labels=1, **shape)
    judge = BertForSequenceClassification(config)
    torch.nn.init.constant_(judge.classifier.bias, float("nan"))
    judge.save_pretrained(tmp_path / "judge")
    tiny_tokenizer.save_pretrained(tmp_path / "judge")
    CrossEncoder(str(tmp_path / "judge"), device="cpu").save_pretrained(str(tmp_path / "judge"))
    with pytest.raises(SpectraError, match=r"judge: (\d+) of \1 scores hold NaN"):
        sp.mine(tiny_pairs(rows=8), "bm25", tmp_path / "mined.jsonl", judge=tmp_path / "judge")
    assert not (tmp_path / "mined.jsonl").exists()


@pytest.mark.parametrize("verb", [["search", "{model}", "open", "--corpus"], ["encode", "{model}", "--input"],
                                  ["codes", "fit", "{model}", "--corpus"], ["anomaly", "fit", "{model}", "--texts"]],
                         ids=lambda verb: verb[0])  # fmt: skip
def test_a_blank_corpus_has_no_rows(folder: Path, tmp_path: Path, verb: list[str]) -> None:
    blank = tmp_path / "blank.txt"
    blank.write_text("\n  \n\n")
    run = CliRunner().invoke(app, [*(word.format(model=folder) for word in verb), str(blank)])
    assert isinstance(run.exception, SpectraError) and "no rows" in str(run.exception), run.output
