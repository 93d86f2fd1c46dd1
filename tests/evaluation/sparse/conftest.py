from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from tests.builders import WORDS


def _transformer(folder: Path) -> Transformer:
    """Returns a masked LM of 2 layers with random weights whose logits differ enough to be sparse after ReLU."""
    torch.manual_seed(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *letters[1:],
        *(f"##{letter}" for letter in letters),
    ]
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(pieces), max_position_embeddings=40, initializer_range=0.5, **shape)
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.cls.predictions.bias.fill_(-1.0)
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={piece: at for at, piece in enumerate(pieces)}).save_pretrained(folder)
    return Transformer(str(folder), transformer_task="fill-mask", max_seq_length=32)


@pytest.fixture(scope="session")
def sparse_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns the folder of a tiny stock `SparseEncoder`: ``sparse_folder(inference_free=True)``; built once each."""
    built: dict[bool, Path] = {}

    def build(*, inference_free: bool = False) -> Path:
        if inference_free not in built:
            folder = tmp_path_factory.mktemp("sparse")
            transformer = _transformer(folder / "bert")
            modules: list[Any] = [transformer, SpladePooling("max")]
            if inference_free:
                weight = torch.linspace(0.5, 2.0, len(transformer.tokenizer))
                query = SparseStaticEmbedding(transformer.tokenizer, weight=weight)
                modules = [Router.for_query_document([query], modules)]
            model = SparseEncoder(modules=modules, device="cpu", prompts={"query": "read ", "document": ""})
            name = "free" if inference_free else "splade"
            model.save_pretrained(str(folder / name))
            built[inference_free] = folder / name
        return built[inference_free]

    return build
