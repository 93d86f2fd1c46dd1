"""encode, similarity, search and train from the command line, as a user runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import spectra_nsa as sp
from tests.builders import bert_folder
from tests.tools.fork_server import ForkServer

Spectra = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def spectra(fork_server: ForkServer, home: Path) -> Spectra:
    """Runs a command at home."""
    return lambda *words: fork_server.run(*words, cwd=home, env={"HOME": str(home)})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    bert_folder(home / "start")
    sp.warm_start(home / "start" / "model").save_pretrained(str(home / "saved"))
    rows = [json.dumps({"anchor": f"open {i}", "positive": f"def read_{i}(file): sort"}) for i in range(40)]
    (home / "pairs.jsonl").write_text("\n".join(rows))
    (home / "lines.txt").write_text("open a file\n\nsort the list\n")
    (home / "odd.csv").write_text("nr,story\n1,open a file\n2,sort the list\n")
    return home


def test_encode_writes_every_output(home: Path, spectra: Spectra) -> None:
    done = spectra(
        "encode", "saved", "--input", "lines.txt", "--outputs", "embedding,semantic", "--dim", "8",
        "--output", "v.npz", "--precision", "fp32", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shapes"] == {"embedding": [2, 8], "semantic": [2, 8]}
    arrays = np.load(home / "v.npz")
    wanted = sp.load(home / "saved").encode(["open a file", "sort the list"], truncate_dim=8)
    assert np.allclose(arrays["embedding"], wanted, atol=1e-6)


def test_encode_takes_several_texts(home: Path, spectra: Spectra) -> None:
    done = spectra("encode", "saved", "--texts", "open", "a file", "--json")
    assert json.loads(done.stdout)["shapes"] == {"embedding": [2, 32]}


def test_encode_warns_of_heads_that_are_not_fitted(home: Path, spectra: Spectra) -> None:
    done = spectra("encode", "saved", "--texts", "open", "--outputs", "fast,anomaly", "--json")
    assert done.stderr.count("not fitted to a corpus") == 2 and "spectra anomaly fit" in done.stderr
    assert "not fitted" not in spectra("encode", "saved", "--texts", "open", "--json").stderr


def test_similarity_of_a_checkpoint_and_of_what_was_saved(home: Path, spectra: Spectra) -> None:
    values = [
        json.loads(spectra("similarity", name, "open", "sort", "--json").stdout)["similarity"]
        for name in ("saved", "start/model")
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_train_then_search_without_naming_the_model(home: Path, spectra: Spectra) -> None:
    lost = spectra("search", "open", "--corpus", "lines.txt")
    assert lost.returncode == 1 and "quickstart" in lost.stderr
    done = spectra(
        "train", "--model", "start/model", "--data", "pairs.jsonl", "--max-steps", "2", "--batch", "8", "--name", "r",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2
    found = spectra("search", "open a file", "--corpus", "lines.txt", "-k", "1", "--json")
    hits = json.loads(found.stdout)["hits"]
    assert [hit["text"] for hit in hits] == ["open a file"] and hits[0]["score"] == pytest.approx(1, abs=1e-2)


def test_dry_run_trains_nothing(home: Path, spectra: Spectra) -> None:
    words = ["train", "--size", "small", "--data", "pairs.jsonl", "--dry-run", "--json", "name=dry"]
    plan = json.loads(spectra(*words).stdout)
    assert plan["rows"] + plan["dev_rows"] == 40 and plan["steps"] > 0 and plan["parameters"] > 4e6
    assert not (home / "runs" / "dry").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "train.lrr=1", "--data", "pairs.jsonl"], 2, "train.lr"),
        (["train", "--size", "minni", "--data", "pairs.jsonl"], 2, "mini"),
        (["train", "--size", "mini", "--model", "saved", "--data", "pairs.jsonl"], 2, "one of them"),
        (["train", "--model", "saved"], 2, "--data"),
        (["train", "--model", "nowhere", "--data", "pairs.jsonl"], 1, "not a model folder"),
        (["train", "--model", "saved", "--data", "nowhere.csv"], 1, "nowhere.csv"),
        (["encode", "saved"], 2, "--texts"),
        (["encode", "saved", "-t", "a", "--dim", "99"], 2, "32"),
        (["encode", "saved", "-t", "a", "--outputs", "semantc"], 2, "semantic"),
        (["encode", "saved", "-t", "a", "--columns", "text=body"], 2, "none of the sources has columns"),
        (["search", "saved", "open", "--corpus", "odd.csv"], 1, "--columns text=nr"),
        (["search", "saved", "open", "--corpus", "pairs.jsonl", "--columns", "text=body"], 1, "fits no source"),
        (["search", "saved", "too", "many", "--corpus", "lines.txt"], 2, "quotes"),
        (["search", "saved", "open", "--corpus", "lines.txt", "--bits", "300"], 2, "64, 128 or 256"),
        (["inspect", "M4567"], 2, "M456"),
        (["inspect", "mini", "--gpu", "H1000"], 2, "H100"),
    ],
)
def test_mistakes_get_a_remedy_and_no_traceback(
    home: Path, spectra: Spectra, words: list[str], code: int, message: str
) -> None:
    done = spectra(*words)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr


def test_columns_with_custom_names(home: Path, spectra: Spectra) -> None:
    own = ["--columns", "text=story"]
    found = spectra("search", "saved", "open a file", "--corpus", "odd.csv", *own, "-k", "1", "--json")
    assert [hit["text"] for hit in json.loads(found.stdout)["hits"]] == ["open a file"], found.stderr
    vectors = spectra("encode", "saved", "--input", "odd.csv", *own, "--json")
    assert json.loads(vectors.stdout)["texts"] == ["open a file", "sort the list"], vectors.stderr
    for words in (["codes", "fit", "saved", "--corpus"], ["anomaly", "fit", "saved", "--texts"]):
        done = spectra(*words, "odd.csv", *own, "--output", "fitted")
        assert done.returncode == 1 and "texts" in done.stderr and "column" not in done.stderr  # two are too few


@pytest.mark.parametrize("more", [[], ["--symmetric"]])
def test_search_by_codes_first_finds_what_exact_search_does(home: Path, spectra: Spectra, more: list[str]) -> None:
    words = ["search", "saved", "open a file", "--corpus", "lines.txt", "-k", "2", "--json"]
    exact = spectra(*words)
    coded = spectra(*words, "--bits", "128", *more)
    assert coded.returncode == 0 and "not fitted to any texts" in coded.stderr, coded.stderr
    assert "for 2 texts the search is exact and fast without codes" in coded.stderr
    hits, wanted = json.loads(coded.stdout)["hits"], json.loads(exact.stdout)["hits"]
    assert [hit["text"] for hit in hits] == [hit["text"] for hit in wanted]
    assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in wanted], abs=0.02)


def test_search_names_functions(tmp_path: Path) -> None:
    from spectra_nsa.cli.texts import read_named_texts

    rows = [{"text": "def a(): ...", "name": "m.a"}, {"text": "def b(): ...", "name": "m.b"}]
    (tmp_path / "code.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    texts, names = read_named_texts("python:stdlib")
    assert names[texts[0]].count(".") >= 1 and len(texts) <= len(names) + 1
    assert read_named_texts(str(tmp_path / "code.jsonl"))[0] == ["def a(): ...", "def b(): ..."]


def test_the_advice_to_fit_codes_repeats_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from spectra_nsa.cli.search import _warn_unfitted

    _warn_unfitted("saved", ["codes", "fit", "saved", "--corpus", "my faq.csv", "--columns", "text=Frage"], 600)
    assert "spectra codes fit saved --corpus 'my faq.csv' --columns text=Frage\n" in capsys.readouterr().err
