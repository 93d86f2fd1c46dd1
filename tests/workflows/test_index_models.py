"""Models of an index: moved with it or without it, and the static query side that the index holds itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.sparse.build import inference_free, splade_from
from spectra_nsa.models.warm_start import warm_start
from spectra_nsa.workflows.searcher import Documents, Searcher
from tests.builders import WORDS, bert_folder, tiny_masked_lm

TEXTS = [" ".join(WORDS[number % 17 : number % 17 + 3]) for number in range(40)]
DOCUMENTS = Documents(ids=[f"t{number}" for number in range(40)], texts=TEXTS)
QUERIES = ["open a file", "read the socket and sort it", "xyz", "!"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with two models, `splade` and `inference_free`, and an index of each beside them."""
    folder = tmp_path / "home"
    model = splade_from(tiny_masked_lm(folder / "start"), max_length=32)
    model.save_pretrained(str(folder / "models" / "splade"))
    weights = torch.linspace(0.1, 2, len(model.tokenizer))
    inference_free(model, weights).save_pretrained(str(folder / "models" / "inference_free"))
    for kind in ("splade", "inference_free"):
        Searcher.build(folder / f"{kind}.index", DOCUMENTS, [str(folder / "models" / kind)])
    return folder


def test_an_index_and_its_model_move_together(home: Path, tmp_path: Path) -> None:
    wanted = Searcher.load(home / "splade.index").hits("open a file")
    home.rename(tmp_path / "elsewhere")
    assert Searcher.load(tmp_path / "elsewhere" / "splade.index").hits("open a file") == wanted


def test_a_masked_lm_moves_too(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    Searcher.build("own.index", DOCUMENTS, ["splade:./start"])
    monkeypatch.chdir(tmp_path)  # the path was relative to another folder
    wanted = Searcher.load(home / "own.index").hits("open a file")
    home.rename(tmp_path / "elsewhere")
    assert Searcher.load(tmp_path / "elsewhere" / "own.index").hits("open a file") == wanted


def test_a_model_that_moved_alone_is_named(home: Path, tmp_path: Path) -> None:
    shutil.move(home / "models", tmp_path / "far")
    index = str(home / "splade.index")
    with pytest.raises(SpectraError, match=r"does not exist.*name its folder with --model"):
        CliRunner().invoke(app, ["search", index, "open"], catch_exceptions=False)
    words = ["search", index, "open", "--model", str(tmp_path / "far" / "splade"), "--json"]
    assert json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)["hits"]


def test_static_queries_give_the_hits_of_the_model(home: Path) -> None:
    searcher, model = (Searcher.load(home / "inference_free.index") for _ in range(2))
    model.models.model("sparse")  # once it is open, it encodes the queries
    for query in QUERIES:
        assert searcher.hits(query, 40) == model.hits(query, 40)
    assert any(searcher.hits(query) for query in QUERIES) and not searcher.models._opened


def test_static_queries_need_neither_model_nor_torch(home: Path) -> None:
    wanted = Searcher.load(home / "inference_free.index").hits("open a file", 3)
    shutil.rmtree(home / "models")
    script = (
        "import sys\nfrom spectra_nsa.cli.main import main\nsys.argv = ['spectra', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n    print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)\n"
    )
    words = ["search", str(home / "inference_free.index"), "open a file", "-k", "3", "--json"]
    run = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=120)
    assert run.stderr.splitlines()[-1] == "[]", run.stderr
    assert [hit["id"] for hit in json.loads(run.stdout)["hits"]] == [hit.id for hit in wanted]
    with pytest.raises(SpectraError, match="does not exist"):  # documents do need it
        Searcher.load(home / "inference_free.index").add(Documents(ids=["n"], texts=["open"]))


def test_an_imported_index_holds_the_query_side_too(home: Path, tmp_path: Path) -> None:
    index, rows, model = home / "inference_free.index", tmp_path / "rows", home / "models" / "inference_free"
    for words in (["export", index, "-o", rows], ["import", rows, "-o", tmp_path / "own", "-m", model]):
        done = CliRunner().invoke(app, ["index", *map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
    assert (tmp_path / "own" / "query_weights.npy").is_file()
    assert Searcher.load(tmp_path / "own").hits("open a file") == Searcher.load(index).hits("open a file")


def test_the_query_side_survives_changes_and_is_checked(home: Path) -> None:
    index = home / "inference_free.index"
    searcher = Searcher.load(index)
    searcher.add(Documents(ids=["n"], texts=["open"]))
    searcher.index.delete(["t1"])
    searcher.index.compact()
    searcher.index.verify()
    assert Searcher.load(index).hits("open a file") and "query_weights.npy" in searcher.index.commit.files
    (index / "query_weights.npy").unlink()
    with pytest.raises(SpectraError, match="is missing"):
        Searcher.load(index)


def test_progress_is_shown_in_lines_without_a_terminal(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectra_nsa.core.console.LINE_EVERY", 0)
    monkeypatch.setattr("spectra_nsa.workflows.index_models.PROGRESS_FROM", 10)
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"open file {number} of the list\n" for number in range(70)))
    words = ["index", "add", str(home / "splade.index"), str(texts)]
    assert "  encoding: 1 of 3\n" in CliRunner().invoke(app, words, catch_exceptions=False).stderr
    texts.write_text("".join(f"open file {number} of the list\n" for number in range(700)))
    library, own = bert_folder(tmp_path), tmp_path / "saved"
    warm_start(library).save_pretrained(str(own))
    for model, lines in ((own, True), (library, False)):  # the library's bar would print itself again and again
        words = ["index", "build", str(texts), "--kind", "hybrid", "-m", str(model), "-o", str(tmp_path / "own.index")]
        said = CliRunner().invoke(app, words, catch_exceptions=False).stderr
        assert (re.search(r"encoding: \d+ of 700 texts, ", said) is not None) is lines and "it/s" not in said
        assert Searcher.load(tmp_path / "own.index").hits("open file 7", 3)
