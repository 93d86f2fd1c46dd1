"""Texts that are longer than a model reads are counted, and a line says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.models.open import find_model, open_encoder, open_model
from spectra_nsa.models.sparse.build import inference_free, splade_from
from spectra_nsa.models.sparse.query_side import QueryWeights
from spectra_nsa.models.warm_start import warm_start
from spectra_nsa.workflows.cut_texts import count_cut
from tests.builders import bert_folder, tiny_masked_lm

MODELS = ("splade", "inference_free", "query_side", "library", "saved")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each kind, which read 32 tokens of a text, the dense ones 48."""
    folder = tmp_path_factory.mktemp("home")
    model = splade_from(tiny_masked_lm(folder / "start"), max_length=32)
    model.save_pretrained(str(folder / "splade"))
    free = inference_free(model, torch.linspace(0.1, 2, len(model.tokenizer)))
    free.save_pretrained(str(folder / "inference_free"))
    free.save_side("query", folder / "query_side")
    bert_folder(folder / "dense").rename(folder / "library")
    warm_start(folder / "library").save_pretrained(str(folder / "saved"))
    return folder


def _opened(home: Path, kind: str) -> Any:
    if kind == "query_side":
        return QueryWeights.load(home / kind)
    if kind == "saved":
        return open_encoder(find_model(home / kind))
    return open_model(home / kind, accept=("sparse", "bert"), convert=False)


SIDES = [
    (kind, role) for kind in MODELS for role in ("query", "document") if (kind, role) != ("query_side", "document")
]


@pytest.mark.parametrize(("kind", "role"), SIDES)
def test_a_text_is_cut_from_the_first_token_beyond_the_limit(home: Path, kind: str, role: str) -> None:
    static = kind == "query_side" or (kind, role) == ("inference_free", "query")
    limit = 48 if kind in ("library", "saved") else 32
    fits = limit if static else limit - 2  # beside two special tokens
    texts = [" ".join(["open"] * length) for length in (1, fits - 1, fits, fits + 1, 3 * fits)]
    assert count_cut(_opened(home, kind), texts, role) == (2, limit)
    assert count_cut(_opened(home, kind), [], role)[0] == 0


def _warnings(*words: object) -> list[str]:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return [line.removeprefix("spectra: warning: ") for line in done.stderr.splitlines() if "longer than" in line]


def test_commands_say_it_in_one_line(home: Path, tmp_path: Path) -> None:
    long, texts = "open a file " * 30, tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in [long, "close it", long + "now"]))
    index, free, dense = tmp_path / "own", home / "inference_free", home / "saved"
    cut = f"2 of 3 documents are longer than the 32 tokens that {free} reads: the rest of them is ignored."
    assert _warnings("index", "build", texts, "-m", free, "-o", index) == [cut]
    assert _warnings("index", "add", index, texts, "--replace") == [cut]
    query = f"the query is longer than the 32 tokens that {free} reads: the rest is ignored."
    assert _warnings("search", index, long) == [query] and _warnings("search", index, "open") == []
    assert _warnings("search", free, long, "--corpus", texts) == [cut, query]
    assert _warnings("encode", free, "-t", long) == [query.replace("query", "document")]
    assert _warnings("encode", dense, "-t", long, "a") == [
        f"1 of 2 texts are longer than the 48 tokens that {dense} reads: the rest of them is ignored."
    ]
    assert len(_warnings("similarity", dense, long, "a")) == len(_warnings("similarity", free, "a", long)) == 1
    assert len(_warnings("search", dense, long, "--corpus", texts)) == 2
