"""One door: each kind of model is known by its files, and opened or refused the same way by every command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, PreTrainedTokenizerBase

import spectra_nsa as sp
from spectra_nsa.core.errors import SpectraError
from spectra_nsa.models.open import DENSE, ModelKind, find_model, model_kind, open_model
from tests.builders import bert_folder

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def folders(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerBase) -> Callable[[str], Path]:
    """Writes a model of a kind."""

    def write(kind: str) -> Path:
        folder = tmp_path / kind
        config = BertConfig(vocab_size=len(tiny_tokenizer), max_position_embeddings=32, **SHAPE)
        if kind == "bert":
            return bert_folder(folder)
        if kind == "spectra":
            sp.warm_start(bert_folder(tmp_path / "start")).save_pretrained(str(folder))
        elif kind == "sentence":
            table = StaticEmbedding(tiny_tokenizer.backend_tokenizer, embedding_dim=8)
            SentenceTransformer(modules=[table], device="cpu").save_pretrained(str(folder))
        elif kind == "sparse":
            BertForMaskedLM(config).save_pretrained(tmp_path / "inner")
            tiny_tokenizer.save_pretrained(tmp_path / "inner")
            modules = [MLMTransformer(str(tmp_path / "inner")), SpladePooling()]
            SparseEncoder(modules=modules, device="cpu").save_pretrained(str(folder))
        elif kind in ("cross", "plain_cross"):
            config.num_labels = 1
            BertForSequenceClassification(config).save_pretrained(folder)
            tiny_tokenizer.save_pretrained(folder)
            if kind == "cross":
                CrossEncoder(str(folder), device="cpu").save_pretrained(str(folder))
        elif kind == "adapter":
            folder.mkdir()
            (folder / "modules.json").write_text("[]")  # sentence-transformers saves adapters so
            facts = {"peft_type": "LORA", "base_model_name_or_path": "org/base"}
            (folder / "adapter_config.json").write_text(json.dumps(facts))
        return folder

    return write


@pytest.mark.parametrize("kind", ["spectra", "bert", "sentence", "sparse", "cross", "plain_cross", "adapter"])
def test_a_kind_is_known_by_its_files(folders: Callable[[str], Path], kind: str) -> None:
    assert model_kind(folders(kind)) == kind.removeprefix("plain_")


@pytest.mark.parametrize("kind", ["spectra", "bert", "sentence"])
def test_dense_models_open(folders: Callable[[str], Path], kind: str) -> None:
    folder = folders(kind)
    stock = SentenceTransformer(str(folder), device="cpu") if kind != "spectra" else sp.load(folder)
    model = open_model(folder, accept=DENSE, device="cpu")
    assert isinstance(model, sp.SpectraSentenceTransformer) == (kind != "sentence")
    np.testing.assert_allclose(model.encode(["open a file"]), stock.encode(["open a file"]), atol=1e-6)
    plain = open_model(folder, accept=DENSE, convert=False)
    assert isinstance(plain, sp.SpectraSentenceTransformer) == (kind == "spectra")


@pytest.mark.parametrize(("kind", "opened"), [("sparse", SparseEncoder), ("cross", CrossEncoder)])
def test_other_encoders_open_where_they_are_accepted(
    folders: Callable[[str], Path], kind: ModelKind, opened: type[torch.nn.Module]
) -> None:
    assert isinstance(open_model(folders(kind), accept=[kind]), opened)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sparse", "is a sparse encoder, but this command needs a Spectra model or a BERT-architecture checkpoint"),
        ("cross", "is a cross-encoder, but this command needs"),
        ("adapter", r"an adapter \(LORA\) of org/base .*merge_and_unload"),
        ("sentence", "without a transformer"),
    ],
)
def test_what_is_not_accepted_is_refused_with_what_it_is(
    folders: Callable[[str], Path], kind: str, message: str
) -> None:
    with pytest.raises(SpectraError, match=message):
        open_model(folders(kind))


def test_another_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    with pytest.raises(SpectraError, match="model of type 'roberta'"):
        find_model(tmp_path)
    assert find_model(tmp_path, accept=DENSE).kind == "sentence"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpectraError, match="not a model folder"):
        find_model(tmp_path)


def test_a_model_that_the_library_cannot_open_is_an_error_of_ours(folders: Callable[[str], Path]) -> None:
    folder = folders("sparse")
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(SpectraError, match="cannot be opened as a sparse encoder"):
        open_model(folder, accept=["sparse"])
