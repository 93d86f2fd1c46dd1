"""`encode`: what it takes, what it returns without texts, token states, and values that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import spectra_nsa as sp
from spectra_nsa.core.errors import SpectraError, UsageError
from spectra_nsa.models.open import open_encoder
from spectra_nsa.models.saved import SavedModel
from spectra_nsa.models.static import static_model
from spectra_nsa.models.teacher import open_teacher
from tests.builders import bert_folder

TEXTS = ["open a file", "sort the list of text", "a"]
INVISIBLE = ["\u200b", "\ufeff", "\u00ad\u00ad", "\x00", "\u2060\u200d", "", " \t"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    sp.warm_start(bert_folder(path / "bert")).save_pretrained(str(path / "model"))
    return path / "model"


@pytest.fixture(scope="module", params=["library", "fast"])
def model(request: pytest.FixtureRequest, folder: Path) -> Any:
    """A saved model, opened with and without transformers."""
    opened: Any = sp.load(folder) if request.param == "library" else open_encoder(folder)
    assert isinstance(opened, SavedModel) == (request.param == "fast")
    return opened


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_without_texts_arrays_keep_type_and_width(model: Any, method: str) -> None:
    encode = getattr(model, method)
    assert (encode([]).shape, encode([]).dtype) == ((0, 32), np.float32)
    assert encode(iter(()), truncate_dim=8).shape == (0, 8)
    found = encode([], outputs=["embedding", "fast", "anomaly"], truncate_dim=8)
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == {
        "embedding": ((0, 8), "float32"), "fast": ((0, 32), "uint8"), "anomaly": ((0,), "float32"),
    }  # fmt: skip


def test_without_texts_the_options_of_the_library_hold(folder: Path) -> None:
    model = sp.load(folder)
    assert (model.encode([], precision="binary").shape, model.encode([], precision="binary").dtype) == ((0, 4), np.int8)
    assert model.encode([], convert_to_tensor=True).shape == (0, 32)
    assert model.encode([], convert_to_numpy=False) == [] == model.encode([], output_value="token_embeddings")
    assert model.similarity(model.encode([]), model.encode(TEXTS)).shape == (0, 3)


def test_any_container_of_texts_gives_the_same_vectors(model: Any) -> None:
    expected = model.encode(TEXTS)
    for texts in (iter(TEXTS), tuple(TEXTS), np.array(TEXTS)):
        assert np.array_equal(model.encode(texts), expected)
    assert np.array_equal(model.encode(iter(TEXTS), outputs=["embedding"])["embedding"].shape, expected.shape)
    assert model.encode(np.str_("open a file")).shape == (32,)
    for outputs in (None, ["embedding"]):
        with pytest.raises(UsageError, match=r"texts\[1\] is of type NoneType"):
            model.encode(["a", None], outputs=outputs)


def test_token_states_are_those_of_the_library(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path)
    ours, theirs = sp.warm_start(folder), SentenceTransformer(str(folder), device="cpu")
    states = [model.encode(TEXTS, output_value="token_embeddings") for model in (ours, theirs)]
    for found, expected in zip(*states, strict=True):
        assert found.shape == expected.shape and (found - expected).abs().max() < 1e-5
    (found, *_), (expected, *_) = (m.encode(TEXTS, output_value=None) for m in (ours, theirs))
    assert found.keys() == expected.keys()
    assert torch.allclose(found["sentence_embedding"], expected["sentence_embedding"], atol=1e-5)
    with pytest.raises(UsageError, match="unknown output_value 'token_embedding'"):
        ours.encode(TEXTS, output_value="token_embedding")


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "attention", "entropy"])
def test_invisible_texts_get_finite_vectors(tmp_path: Path, pooling: str) -> None:
    start = bert_folder(tmp_path, prompts={"query": "read the text " * 40, "document": ""}, include_prompt=False)
    model = sp.warm_start(start, pooling=pooling, entity=True)
    outputs = ["embedding", "semantic", "entity", "ranking", "anchor64", "fast_logits", "anomaly"]
    for encode in (model.encode, model.encode_query):  # the query prompt leaves no token of the text to pool
        for name, array in encode([*INVISIBLE, "open"], outputs=outputs).items():
            assert np.isfinite(array).all(), name
        assert np.isfinite(encode(INVISIBLE)).all()


def test_a_static_model_gives_texts_without_tokens_zero_vectors(tmp_path: Path) -> None:
    student = static_model(open_teacher(bert_folder(tmp_path)), [TEXTS], 8)
    vectors = student.encode([*INVISIBLE, "open"], normalize_embeddings=True)
    assert not vectors[:-1].any() and np.linalg.norm(vectors[-1]) == pytest.approx(1)
    scores = [hit.score for hit in sp.similar_texts("open", [*INVISIBLE, "open"], student)]
    assert scores[0] == pytest.approx(1) and not any(scores[1:])


def broken(folder: Path, word: str = "socket") -> sp.SpectraSentenceTransformer:
    """Opens a model whose vector of one word is NaN."""
    model = sp.load(folder)
    with torch.no_grad():
        model.spectra.encoder.embeddings.tokens.weight[model.tokenizer.convert_tokens_to_ids(word)] = float("nan")
    return model


def test_outputs_that_would_hide_nan_are_refused(folder: Path, tmp_path: Path) -> None:
    model = broken(folder)
    model.save_pretrained(str(tmp_path / "m"))
    texts = ["open a file", "close the socket"]
    for opened in (model, open_encoder(tmp_path / "m")):
        assert np.isnan(opened.encode(texts)).all(1).tolist() == [False, True]
        with pytest.raises(SpectraError, match="the model: 1 of 2 values of fast_logits hold NaN or infinity"):
            opened.encode(texts, outputs=["fast"])
        opened.encode(texts[:1], outputs=["fast"])


def test_a_score_of_nan_has_no_p_value(folder: Path) -> None:
    head = sp.load(folder).spectra.anomaly
    head.method, head.calibration = "density", torch.zeros(9)
    p_values = head.p_value(torch.tensor([float("nan"), 1.0, -1.0]))
    assert p_values.isnan().tolist() == [True, False, False] and p_values[1:].tolist() == pytest.approx([0.1, 1.0])
