"""Each side of a sparse encoder alone."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import load_npz
from sentence_transformers import SparseEncoder

from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.models.open import open_model
from spectra_nsa.models.sparse.build import inference_free, splade_from
from spectra_nsa.models.sparse.encoder import SpectraSparseEncoder
from spectra_nsa.models.sparse.query_side import SETTINGS, TOKENIZER, WEIGHTS, QueryWeights
from tests.builders import WORDS, tiny_masked_lm

TEXTS = [" ".join(WORDS), WORDS[3], f"{WORDS[1]} {WORDS[1]} [SEP] zebra", "", "[CLS]", " ".join(WORDS * 9)]


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> SpectraSparseEncoder:
    model = splade_from(tiny_masked_lm(tmp_path_factory.mktemp("masked-lm") / "model"), max_length=32)
    model.prompts = {"query": "open ", "document": "close "}
    weights = torch.linspace(-1, 2, model.get_embedding_dimension() or 0)  # many words weigh nothing
    return inference_free(model, weights.roll(3))


@pytest.fixture
def side(free: SpectraSparseEncoder, tmp_path: Path) -> Path:
    free.save_side("query", tmp_path / "query")
    return tmp_path / "query"


def test_queries_need_neither_torch_nor_transformers(free: SpectraSparseEncoder, side: Path, tmp_path: Path) -> None:
    script = (
        "import json, sys; from scipy.sparse import save_npz\n"
        "from spectra_nsa.models.sparse.query_side import QueryWeights\n"
        "rows = QueryWeights.load(sys.argv[1]).encode(json.loads(sys.argv[2]))\n"
        "assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
        "save_npz(sys.argv[3], rows)"
    )
    out = tmp_path / "rows.npz"
    subprocess.run([sys.executable, "-c", script, str(side), json.dumps(TEXTS), str(out)], check=True)
    found, wanted = load_npz(out), free.encode_csr(TEXTS, "query")
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.has_sorted_indices and found.dtype == np.float32 and wanted.nnz


def test_limits_and_fallback_are_those_of_the_model(
    free: SpectraSparseEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free = copy.deepcopy(free)
    free.max_active_dims = 2
    free.save_side("query", tmp_path / "query")
    found, wanted = QueryWeights.load(tmp_path / "query").encode(TEXTS), free.encode_csr(TEXTS, "query")
    assert (found != wanted).nnz == 0 and np.diff(found.indptr).max() == 2
    free.prompts["query"] = ""
    torch.nn.init.zeros_(free.static("query").weight)
    free.save_side("query", tmp_path / "query")  # replaces what it wrote
    found = QueryWeights.load(tmp_path / "query").encode(TEXTS)
    capsys.readouterr()
    assert (found != free.encode_csr(TEXTS, "query")).nnz == 0
    assert np.diff(found.indptr).tolist() == [1, 1, 1, 0, 0, 1]
    messages = capsys.readouterr().err
    assert "4 texts of 6 without an active term: the strongest of its own tokens" in messages
    assert "2 texts of 6 without any term" in messages


def test_the_document_side_is_a_plain_sparse_encoder(free: SpectraSparseEncoder, tmp_path: Path) -> None:
    free.save_side("document", tmp_path / "documents")
    library = SparseEncoder(str(tmp_path / "documents"), device="cpu")
    torch.testing.assert_close(library.encode(TEXTS[:3]).to_dense(), free.encode_document(TEXTS[:3]).to_dense())


def test_what_is_no_side_or_would_be_lost_is_refused(free: SpectraSparseEncoder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown role 'quary'.*'query'"):
        free.save_side("quary", tmp_path / "x")
    (tmp_path / "notes.txt").write_text("mine")
    for role in ("query", "document"):
        with pytest.raises(UsageError, match="would be lost"):
            free.save_side(role, tmp_path)
    with pytest.raises(SpectraError, match="save_side"):
        QueryWeights.load(tmp_path)


def _shorter(folder: Path) -> None:
    np.save(folder / WEIGHTS, np.load(folder / WEIGHTS)[:-3])


def _not_finite(folder: Path) -> None:
    np.save(folder / WEIGHTS, np.where(np.load(folder / WEIGHTS) > 1, np.nan, 0).astype(np.float32))


def _pickled(folder: Path) -> None:
    np.save(folder / WEIGHTS, np.array([print], dtype=object), allow_pickle=True)


def _renamed(folder: Path) -> None:  # the same size, with two terms exchanged
    text = (folder / TOKENIZER).read_text(encoding="utf-8")
    facts = json.loads(text)
    words = facts["model"]["vocab"]
    words["open"], words["close"] = words["close"], words["open"]
    (folder / TOKENIZER).write_text(json.dumps(facts), encoding="utf-8")


def _special(folder: Path) -> None:  # as if the weights were of a vocabulary with other special tokens
    facts = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps(facts | {"special_ids": [70]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_shorter, "without a vector.*restore both"),
        (_not_finite, "NaN or infinity"),
        (_pickled, "cannot be opened"),
        (_renamed, "not the tokenizer.*restore both"),
        (_special, "not the tokenizer.*restore both"),
        (lambda folder: (folder / TOKENIZER).unlink(), "cannot be opened"),
        (lambda folder: (folder / SETTINGS).write_text("[]"), SETTINGS),
    ],
)
def test_a_tokenizer_that_does_not_fit_the_weights_is_refused(
    side: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(side)
    with pytest.raises(SpectraError, match=message):
        QueryWeights.load(side)


@pytest.mark.parametrize("how", ["exchanged", "shorter"])
def test_a_routed_folder_whose_tokenizer_does_not_fit_is_refused(
    free: SpectraSparseEncoder, how: str, tmp_path: Path
) -> None:
    free.save_pretrained(str(tmp_path / "model"))
    open_model(tmp_path / "model", accept=("sparse",))
    (queries,) = (tmp_path / "model").glob("query_*")
    if how == "exchanged":
        _renamed(queries)
    else:
        from safetensors.torch import load_file, save_file

        save_file({"weight": load_file(queries / "model.safetensors")["weight"][:-3]}, queries / "model.safetensors")
    with pytest.raises(SpectraError, match=r"model: .*estore|cannot be opened"):
        open_model(tmp_path / "model", accept=("sparse",))


@pytest.mark.parametrize("kind", ["splade", "inference_free"])
def test_an_unknown_role_is_refused_wherever_one_is_taken(kind: str, tmp_path: Path) -> None:
    from spectra_nsa.evaluation.sparse.encoding import encode_rows, modules_of
    from spectra_nsa.models.encoding.roles import encode_role

    model = splade_from(tiny_masked_lm(tmp_path / "start"), max_length=32)
    if kind == "inference_free":
        model = inference_free(model, torch.linspace(0.1, 2, len(model.tokenizer)))
    calls = {
        "encode_csr": lambda: model.encode_csr(["a"], "qery"),
        "encode_role": lambda: encode_role(model, ["a"], "qery"),
        "encode_rows": lambda: encode_rows(model, ["a"], "qery", name="m"),
        "modules_of": lambda: modules_of(model, "qery"),
    }
    for call in calls.values():
        with pytest.raises(UsageError, match=r"unknown role 'qery'. Did you mean 'query'"):
            call()
    assert model.encode_csr(["a"]).shape[0] == 1
