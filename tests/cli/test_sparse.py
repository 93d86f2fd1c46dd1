"""encode, similarity and inspect on the folder of a sparse encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from spectra_nsa.cli.main import app
from spectra_nsa.index.sparse.exchange import read_rows
from spectra_nsa.models.sparse.build import inference_free, splade_from
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from tests.builders import tiny_masked_lm

TEXTS = ["open a file", "sort the list"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("sparse")
    model = splade_from(tiny_masked_lm(home / "start"), max_length=32)
    model.save_pretrained(str(home / "splade"))
    inference_free(model, torch.linspace(0.1, 2, len(model.tokenizer))).save_pretrained(str(home / "inference_free"))
    return {name: home / name for name in ("splade", "inference_free")}


def _run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def _json(*words: object) -> Any:
    done = _run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_encode_prints_weighted_terms(folders: dict[str, Path]) -> None:
    found = _json("encode", folders["inference_free"], "-t", TEXTS[0], TEXTS[1], "--role", "query")
    model = SpectraSparseEncoder(str(folders["inference_free"]), device="cpu")
    wanted = model.decode(model.encode_query(TEXTS))
    assert [dict(terms) for terms in found["terms"]] == [pytest.approx(dict(terms)) for terms in wanted]
    assert found["shape"] == [2, len(model.tokenizer)] and found["role"] == "query"
    assert len(_json("encode", folders["splade"], "-t", TEXTS[0], "--active", 3)["terms"][0]) == 3
    printed = _run("encode", folders["inference_free"], "-t", "open", "--role", "query").stdout
    assert "1.0 active terms per text" in printed and "    open " in printed


def test_encode_writes_rows_vocabulary_and_texts(folders: dict[str, Path], tmp_path: Path) -> None:
    found = _json(
        "encode",
        folders["splade"],
        "-t",
        *TEXTS,
        "--dtype",
        "sparse",
        "--precision",
        "fp32",
        "--output",
        tmp_path / "out",
    )
    content = read_rows(tmp_path / "out")
    model = SpectraSparseEncoder(str(folders["splade"]), device="cpu")
    assert (content.rows != model.encode_csr(TEXTS, "document")).nnz == 0 and found["terms"] is None
    assert content.vocabulary is not None and content.vocabulary[model.tokenizer.vocab["open"]] == "open"
    assert [record.text for record in content.records or ()] == TEXTS


def test_similarity_is_the_dot_product_by_terms(folders: dict[str, Path]) -> None:
    found = _json("similarity", folders["inference_free"], *TEXTS)
    model = SpectraSparseEncoder(str(folders["inference_free"]), device="cpu")
    wanted = model.similarity(model.encode_query(TEXTS[0]), model.encode_document(TEXTS[1]))
    assert found["similarity"] == pytest.approx(float(wanted)) == pytest.approx(sum(w for _, w in found["terms"]))
    assert "dot product" in _run("similarity", folders["inference_free"], *TEXTS).stdout


@pytest.mark.parametrize("kind", ["splade", "inference_free"])
def test_inspect_describes_both_sides(folders: dict[str, Path], kind: str) -> None:
    facts = _json("inspect", folders[kind])
    model = SpectraSparseEncoder(str(folders[kind]), device="cpu")
    assert facts["kind"] == kind and facts["vocabulary"] == len(model.tokenizer)
    assert facts["parameters"] == sum({id(weight): weight.numel() for weight in model.parameters()}.values())
    assert facts["document"]["max_length"] == 32 and facts["document"]["modules"] == ["Transformer", "SpladePooling"]
    assert facts["query"]["modules"][0] == ("SparseStaticEmbedding" if kind == "inference_free" else "Transformer")
    assert f"{len(model.tokenizer)} terms" in _run("inspect", folders[kind]).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encode", "MODEL", "-t", "a", "--dim", "8"], "--active N"),
        (["encode", "MODEL", "-t", "a", "--outputs", "fast"], "--active N"),
        (["encode", "MODEL", "-t", "a", "--output", "v.npz"], "a folder, such as v"),
        (["similarity", "MODEL", "a", "b", "--dim", "8"], "--active N"),
        (["encode", "./gone", "-t", "a", "--active", "3"], "for sparse encoders"),
    ],
)
def test_options_of_dense_vectors_are_refused(folders: dict[str, Path], words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, [word.replace("MODEL", str(folders["splade"])) for word in words])
    assert done.exit_code == 2 or done.exception is not None
    assert message in (done.output + str(done.exception))


def test_a_masked_lm_with_splade_pooling_is_taken_too(folders: dict[str, Path]) -> None:
    name, saved = f"splade:{folders['splade'].parent / 'start'}", folders["splade"]
    facts, known = _json("inspect", name), _json("inspect", saved)
    assert facts["kind"] == "splade" and facts["parameters"] == known["parameters"]
    assert facts["vocabulary"] == known["vocabulary"] and facts["query"]["modules"] == ["Transformer", "SpladePooling"]
    assert _json("encode", name, "-t", TEXTS[0])["terms"] == _json("encode", saved, "-t", TEXTS[0])["terms"]
    assert _json("similarity", name, *TEXTS)["similarity"] == _json("similarity", saved, *TEXTS)["similarity"]


def test_a_short_name_is_known_to_inspect() -> None:
    from spectra_nsa.core.starter import TINY_SPLADE

    if TINY_SPLADE.folder() is None:
        pytest.skip('the tiny masked LM is not installed: pip install "spectra-nsa[sparse]"')
    assert _json("inspect", "splade:tiny")["vocabulary"] == 30522
