"""The masked-LM class: BERT's logits, tied weights, and use in a SparseEncoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

import spectra_nsa.hf  # noqa: F401 (registers)
from spectra_nsa.models.masked_lm import warm_start_masked_lm
from spectra_nsa.models.model import SpectraForMaskedLM, SpectraModel

SHAPE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def bert_checkpoint(folder: Path) -> BertForMaskedLM:
    torch.manual_seed(0)
    bert = BertForMaskedLM(BertConfig(**SHAPE)).eval()
    torch.nn.init.normal_(bert.cls.predictions.bias)
    bert.save_pretrained(folder)
    return bert


def test_logits_and_loss_equal_berts_before_and_after_a_reload(tmp_path: Path) -> None:
    bert = bert_checkpoint(tmp_path / "bert")
    ours = warm_start_masked_lm(tmp_path / "bert")
    ours.save_pretrained(tmp_path / "ours")
    ids = torch.randint(1, 97, (3, 9))
    labels = ids.clone()
    labels[:, ::2] = -100
    expected = bert(ids, labels=labels)
    for model in (ours, AutoModelForMaskedLM.from_pretrained(tmp_path / "ours").eval()):
        actual = model(ids, labels=labels)
        assert (actual.logits - expected.logits).abs().max() <= 1e-5
        assert abs(float(actual.loss.detach()) - float(expected.loss.detach())) <= 1e-5


def test_the_decoder_stays_tied_to_the_embedding_after_a_reload(tmp_path: Path) -> None:
    bert_checkpoint(tmp_path / "bert")
    warm_start_masked_lm(tmp_path / "bert").save_pretrained(tmp_path / "ours")
    again = SpectraForMaskedLM.from_pretrained(tmp_path / "ours")
    assert again.lm_head.decoder.weight is again.model.encoder.embeddings.tokens.weight


def test_the_encoder_loads_without_reports_about_the_head(tmp_path: Path) -> None:
    bert_checkpoint(tmp_path / "bert")
    warm_start_masked_lm(tmp_path / "bert").save_pretrained(tmp_path / "ours")
    _, info = SpectraModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]


def test_it_works_in_a_sparse_encoder(make_bert: Callable[..., Path], tmp_path: Path) -> None:
    source = make_bert()
    warm_start_masked_lm(source).save_pretrained(tmp_path / "ours")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "ours")
    module = Transformer(str(tmp_path / "ours"), transformer_task="fill-mask")
    sparse = SparseEncoder(modules=[module, SpladePooling("max")], device="cpu")
    vectors = sparse.encode(["open a file", "sort the list"]).to_dense()
    assert vectors.shape == (2, module.model.config.vocab_size)
    assert (vectors >= 0).all() and (vectors > 0).any()
    sparse.save_pretrained(str(tmp_path / "sparse"))
    again = SparseEncoder(str(tmp_path / "sparse"), device="cpu").encode(["open a file", "sort the list"]).to_dense()
    assert torch.equal(again, vectors)
