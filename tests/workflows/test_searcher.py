"""Index folders by text: built, searched, changed, moved, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from typer.testing import CliRunner

from spectra_nsa.cli.main import app
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.text.shared_columns import SharedColumns
from spectra_nsa.workflows.index_corpus import read_documents, read_queries, text_id
from spectra_nsa.workflows.searcher import Searcher
from tests.builders import WORDS, bert_folder, tiny_masked_lm

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sparse encoder, a dense model, and texts."""
    folder = tmp_path_factory.mktemp("home")
    inner = tiny_masked_lm(folder / "bert")
    modules = [Transformer(str(inner), transformer_task="fill-mask", max_seq_length=32), SpladePooling("max")]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(str(folder / "tiny"))
    bert_folder(folder / "dense")
    rows = [{"id": f"t{n}", "text": " ".join(WORDS[n % 17 : n % 17 + 4]), "lang": "py"} for n in range(30)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "more.jsonl").write_text(
        '{"id": "m1", "text": "read a socket"}\n{"id": "t1", "text": "close the file"}\n'
    )
    return folder


@pytest.fixture(scope="module")
def built(home: Path) -> Path:
    documents, _ = read_documents(str(home / "texts.jsonl"), SharedColumns(None))
    models = [str(home / "tiny"), str(home / "dense" / "model")]
    Searcher.build(home / "hybrid", documents, models, kind="hybrid")
    Searcher.build(home / "sparse", documents, models[:1])
    return home


def test_sparse_hits_are_those_of_the_model(built: Path) -> None:
    model = SparseEncoder(str(built / "tiny"), device="cpu")
    texts = [json.loads(line)["text"] for line in (built / "texts.jsonl").read_text().splitlines()]
    scores = model.similarity(model.encode_query("open a file"), model.encode_document(texts)).numpy()[0]
    searcher = Searcher.load(built / "sparse")
    hits = searcher.hits("open a file", 5)
    assert np.allclose([hit.score for hit in hits], np.sort(scores)[::-1][:5], rtol=2e-2)
    assert all(np.isclose(scores[int(hit.id[1:])], hit.score, rtol=2e-2) for hit in hits)
    assert hits[0].metadata == {"lang": "py"} and hits[0].text == texts[int(hits[0].id[1:])]
    vocabulary = model.tokenizer.convert_ids_to_tokens(range(len(model.tokenizer)))
    assert json.loads((built / "sparse" / "vocabulary.json").read_text()) == vocabulary


def test_hybrid_fits_and_remembers_its_weights(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "hybrid", tmp_path / "hybrid")
    searcher = Searcher.load(tmp_path / "hybrid")
    assert set(searcher.index.parts) == {"sparse", "dense", "bm25"} and searcher.fusion.method == "rrf"
    assert searcher.hits("read a socket", 3)
    queries = [" ".join(WORDS[n % 17 : n % 17 + 3]) for n in range(30)]
    fusion = searcher.fit(queries, [{f"t{n}": 1.0, "unknown": 1.0} for n in range(30)])
    again = Searcher.load(tmp_path / "hybrid")
    assert again.fusion == fusion and fusion.fit["queries"] == 30
    assert again.hits("read a socket", 3) == searcher.hits("read a socket", 3)
    with pytest.raises(SpectraError, match="only 3 queries"):
        searcher.fit(queries[:3], [{"t1": 1.0}] * 3)
    with pytest.raises(UsageError, match="nothing to fuse"):
        Searcher.load(built / "sparse").fit(queries, [{"t1": 1.0}] * 30)


def test_columns_are_shared_with_development_queries(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = [json.loads(line)["text"] for line in (built / "texts.jsonl").read_text().splitlines()]
    rows = [{"question": f"read {number}", "answer": text, "about": "x"} for number, text in enumerate(texts)]
    Path("dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["--columns", "anchor=question,positive=answer"]
    words = ["index", "build", str(built / "texts.jsonl"), "-m", str(built / "tiny"), "-o", "own", "--kind", "hybrid"]
    done = CliRunner().invoke(app, [*words, "--dev", "dev.jsonl", *columns], catch_exceptions=False)
    assert done.exit_code == 0 and "held-out" in done.stderr
    done = CliRunner().invoke(app, ["index", "fit", "own", "dev.jsonl", *columns], catch_exceptions=False)
    assert done.exit_code == 0 and "held-out" in done.stderr
    Path("plain.jsonl").write_text('{"anchor": "a", "positive": "b"}\n')
    with pytest.raises(SpectraError, match="--columns fits no source"):
        CliRunner().invoke(app, ["index", "fit", "own", "plain.jsonl", *columns], catch_exceptions=False)


def test_a_model_that_moved_or_changed(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "sparse", tmp_path / "index")
    shutil.copytree(built / "tiny", tmp_path / "tiny")
    documents, _ = read_documents(str(built / "texts.jsonl"), SharedColumns(None))
    Searcher.build(tmp_path / "index", documents, [str(tmp_path / "tiny")])
    config = tmp_path / "tiny" / "config_sentence_transformers.json"
    config.write_text(config.read_text().replace('"query": ""', '"query": "read "'))
    with pytest.raises(SpectraError, match=r"has changed since.*name its folder with --model"):
        Searcher.load(tmp_path / "index").hits("open")
    moved = Searcher.load(tmp_path / "index", models=[str(built / "tiny")])
    assert moved.hits("open a file") == Searcher.load(built / "sparse").hits("open a file")
    with pytest.raises(SpectraError, match="is not a model that"):
        Searcher.load(tmp_path / "index", models=[str(tmp_path / "tiny")])


def test_models_that_do_not_fit_the_kind(built: Path) -> None:
    documents, _ = read_documents(str(built / "texts.jsonl"), SharedColumns(None))
    sparse, dense = str(built / "tiny"), str(built / "dense" / "model")
    with pytest.raises(SpectraError, match="needs a sparse encoder"):
        Searcher.build(built / "x", documents, [dense])
    with pytest.raises(UsageError, match="both sparse models"):
        Searcher.build(built / "x", documents, [sparse, sparse], kind="hybrid")
    with pytest.raises(UsageError, match="kind of index"):
        Searcher.build(built / "x", documents, [sparse], kind="hybird")
    assert not (built / "x").exists()


def test_a_masked_lm_with_splade_pooling(built: Path, tmp_path: Path) -> None:
    documents, _ = read_documents(str(built / "texts.jsonl"), SharedColumns(None))
    Searcher.build(tmp_path / "index", documents, [f"splade:{built / 'bert'}"])
    found = Searcher.load(tmp_path / "index").hits("open a file")
    wanted = Searcher.load(built / "sparse").hits("open a file")
    assert [hit.id for hit in found] == [hit.id for hit in wanted]


def test_documents_of_sources(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("open a file\nclose it\nopen a file\n")
    documents, repeated = read_documents(str(lines), SharedColumns(None))
    assert documents.ids == [text_id("open a file"), text_id("close it")] and repeated == 1
    named = tmp_path / "named.jsonl"
    rows = [{"name": f"n{min(number, 18)}", "text": f"text {number}"} for number in range(20)]
    named.write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents, repeated = read_documents(str(named), SharedColumns(None))
    assert documents.ids[-2:] == ["n18", "n18#2"] and repeated == 0
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"id": 7, "anchor": "how", "positive": "so"}\n{"id": 8, "anchor": "why", "positive": "as"}\n')
    documents, repeated = read_documents(str(pairs), SharedColumns(None))
    assert (documents.ids, documents.texts, documents.metadata) == (["7", "8"], ["so", "as"], None)
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text(pairs.read_text().replace("anchor", "question").replace("positive", "answer"))
    columns = SharedColumns({"anchor": "question", "positive": "answer"})
    documents, _ = read_documents(str(renamed), columns)
    assert (documents.ids, documents.metadata) == (["7", "8"], [{"question": "how"}, {"question": "why"}])
    queries, relevant = read_queries(str(pairs), SharedColumns(None), {"so": "7"})
    assert (queries, relevant) == (["how", "why"], [{"7": 1.0}, {}])


def test_the_commands(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def spectra(*words: str) -> Any:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    texts, more, model = (str(built / name) for name in ("texts.jsonl", "more.jsonl", "tiny"))
    first = spectra("index", "build", texts, "-m", model, "-o", "own", "--prune", "top=9", "--json")
    assert first["documents"] == 30 and first["kind"] == "sparse"
    with pytest.raises(UsageError, match="1 document of 2 with an id that the index has, such as 't1'"):
        spectra("index", "add", "own", more)
    assert spectra("index", "add", "own", more, "--replace", "--json")["documents"] == 31
    assert spectra("index", "delete", "own", "t2", "nothing", "--json")["deleted_now"] == 1
    found = spectra("search", "own", "read a socket", "-k", "40", "--json")
    assert "m1" in {hit["id"] for hit in found["hits"]} and "t2" not in {hit["id"] for hit in found["hits"]}
    info = spectra("index", "info", "own", "--json")
    assert info["documents"] == 30 and info["parts"]["sparse"]["posting_length"]["max"] <= 32
    assert 0 < info["parts"]["sparse"]["lost_share"] < 1
    assert spectra("index", "compact", "own", "--json")["segments"] == 1
    assert spectra("index", "verify", "own", "--json")["intact"]
    assert spectra("index", "export", "own", "-o", "csr", "--json")["documents"] == 30
    assert {path.name for path in (tmp_path / "csr").iterdir()} == {"rows.npz", "vocabulary.json", "records.jsonl"}
    again = spectra("index", "import", "csr", "-o", "again", "-m", model, "--json")
    assert again["documents"] == 30
    left, right = (spectra("search", name, "read a socket", "--json")["hits"] for name in ("own", "again"))
    assert left == right and len(left) == 10


@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        (["search", "sparse", "open", "--corpus", "texts.jsonl"], 2, "--corpus is for"),
        (["search", "sparse", "a", "b"], 2, "put the query in quotes"),
        (["search", "sparse", " "], 2, "the query is empty"),
        (["search", "texts.jsonl", "open"], 2, "texts.jsonl is a file, neither an index nor a model"),
        (["search", "./gone", "open"], 2, "./gone does not exist as an index or a model here. Name an index"),
        (["search", "tiny", "open"], 2, "spectra index build SOURCE --model tiny --output DIR"),
        (["search", "tiny"], 2, "tiny is a model, not an index"),
        (["search", "dense/model", "open"], 2, "with --corpus SOURCE."),
        (["search", "dense", "open"], 1, "dense is not a model folder, but contains one. Name dense/model"),
        (["search", "splade:bert", "open"], 2, "splade:bert is a model, not an index"),
        (["search", "empty", "open"], 2, "empty is neither an index nor a model"),
        (["search", "broken", "open"], 1, "is not the manifest of an index, or it is damaged"),
        (["search", "open"], 2, "nothing to search: name an index"),
        (["search", "tiny", "open", "--corpus", "texts.jsonl", "--bits", "64"], 2, "tiny is a sparse encoder"),
        (["search", "tiny", "open", "--corpus", "texts.jsonl", "-m", "tiny"], 2, "--model is for an index"),
        (["index", "info", "tiny"], 1, "not an index"),
        (["index", "fit", "sparse", "texts.jsonl"], 1, "has no queries"),
        (["index", "build", "texts.jsonl", "-m", "tiny", "-o", "tiny"], 2, "a folder with other files"),
        (["index", "build", "texts.jsonl", "-m", "tiny", "-o", "x", "--prune", "top"], 2, "top=100"),
        (["index", "build", "texts.jsonl", "-m", "tiny", "-o", "x", "--dev", "texts.jsonl"], 2, "--kind hybrid"),
    ],
)
def test_mistakes(built: Path, run_spectra: Run, words: list[str], status: int, problem: str) -> None:
    (built / "empty").mkdir(exist_ok=True)
    (built / "broken").mkdir(exist_ok=True)
    (built / "broken" / "manifest.json").write_text(json.dumps({"schema": 1, "files": {}}))
    run = run_spectra(*words, cwd=built)
    assert run.returncode == status and problem in run.stderr


def test_without_a_query_each_line_is_one(
    built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    from spectra_nsa.cli.index_search import search_index

    monkeypatch.setattr("sys.stdin", io.StringIO("open a file\n\nread a socket\n"))
    search_index([str(built / "sparse")], 2, 1, True)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["query"] for one in printed] == ["open a file", "read a socket"]
    assert all(len(one["hits"]) == 2 for one in printed)


def test_a_sparse_encoder_searches_a_corpus_exactly(built: Path) -> None:
    words = ["search", str(built / "tiny"), "open a file", "--corpus", str(built / "texts.jsonl"), "-k", "5", "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    hits = json.loads(done.stdout)["hits"]
    wanted = Searcher.load(built / "sparse").hits("open a file", 30)
    found = {hit.text: hit.score for hit in wanted}
    assert hits[0]["text"] == wanted[0].text and len(hits) == 5
    assert all(np.isclose(found[hit["text"]], hit["score"], rtol=1e-5) for hit in hits)


def test_texts_that_came_before_are_left_out_with_a_remedy(built: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "open a file", "lang": "py"}\n{"text": "open a file", "lang": "go"}\n')
    words = ["index", "build", str(texts), "-m", str(built / "tiny"), "-o", str(tmp_path / "own")]
    said = CliRunner().invoke(app, words, catch_exceptions=False).stderr
    assert "1 document left out, metadata included: the same text came before." in said
    assert "give the source a column _id or id or name of distinct values" in said


def test_deleted_ids_that_are_unknown_are_named(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "sparse", tmp_path / "own")
    index = str(tmp_path / "own")
    done = CliRunner().invoke(app, ["index", "delete", index, "t1", "u1", "u2", "u3", "u4"], catch_exceptions=False)
    assert done.exit_code == 0 and "4 ids not in the index: 'u1', 'u2', 'u3', …." in done.stderr
    with pytest.raises(SpectraError, match=r"2 ids not in the index: 't1', 'u1'. Nothing was deleted"):
        CliRunner().invoke(app, ["index", "delete", index, "t1", "u1"], catch_exceptions=False)


def test_a_damaged_index_does_not_advise_the_command_that_found_it(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "sparse", tmp_path / "own")
    for path in (tmp_path / "own").rglob("*.npy"):
        path.write_bytes(b"\0" * path.stat().st_size)  # the size stays
    with pytest.raises(SpectraError, match="is damaged") as caught:
        CliRunner().invoke(app, ["index", "verify", str(tmp_path / "own")], catch_exceptions=False)
    assert "index verify" not in str(caught.value) and "Build the index again, or restore a copy" in str(caught.value)
