from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

from tests.builders import tiny_masked_lm


@pytest.fixture(scope="session")
def sparse_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Returns the folder of a tiny stock `SparseEncoder`: ``sparse_folder(inference_free=True)``; built once each."""
    built: dict[bool, Path] = {}

    def build(*, inference_free: bool = False) -> Path:
        if inference_free not in built:
            folder = tmp_path_factory.mktemp("sparse")
            tiny_masked_lm(folder / "bert")
            transformer = Transformer(str(folder / "bert"), transformer_task="fill-mask", max_seq_length=32)
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
