"""Masked-LM models: from a BERT checkpoint or on a sentence model's encoder, and their saved folder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import BertForMaskedLM

from spectra_nsa.models.bert_adapter import (
    config_from_bert,
    encoder_from_bert,
    load_bert_weights,
    masked_lm_head_from_bert,
)
from spectra_nsa.models.checks import check_folder, resolve_folder, transformer_folder, weight_shapes
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraForMaskedLM
from spectra_nsa.models.sentence import SpectraSentenceTransformer

_HEAD = "lm_head."
_BERT_HEAD = "cls.predictions."


def warm_start_masked_lm(checkpoint: str | Path) -> SpectraForMaskedLM:
    """Builds a `SpectraForMaskedLM` that returns a BERT checkpoint's logits.

    If the checkpoint has no masked-LM head, as sentence encoders do, transformers initializes one at random and
    reports it. The encoder is exact in either case.

    Args:
        checkpoint: a local folder or a Hub name.

    Raises:
        SpectraError: the checkpoint is missing, damaged or of another architecture.
    """
    folder = resolve_folder(checkpoint)
    check_folder(folder)
    bert = BertForMaskedLM.from_pretrained(folder, local_files_only=True)
    weights = bert.state_dict()
    model = SpectraForMaskedLM(SpectraConfig(**config_from_bert(bert.config.to_dict())))
    encoder = {name.removeprefix("bert."): value for name, value in weights.items() if name.startswith("bert.")}
    load_bert_weights(model.model.encoder, encoder_from_bert(encoder, bert.config.num_hidden_layers))
    head = masked_lm_head_from_bert(weights) | {"decoder.weight": encoder["embeddings.word_embeddings.weight"]}
    model.lm_head.load_state_dict(head)
    with torch.no_grad():
        model.tie_weights()
    return model.eval()


def with_masked_lm_head(model: SpectraSentenceTransformer, folder: Path | None) -> SpectraForMaskedLM:
    """Adds a masked-LM head to a sentence model.

    Args:
        model: the sentence model; the result shares its encoder and heads.
        folder: checkpoint whose masked-LM head is loaded. With ``None``, or a checkpoint without one, the head is
            random.

    Raises:
        SpectraError: the folder is damaged.
    """
    masked_lm = SpectraForMaskedLM(model.spectra.config)
    masked_lm.model = model.spectra
    head = saved_head(folder) if folder is not None else None
    if head is not None:
        masked_lm.lm_head.load_state_dict(head, strict=False)  # the decoder is tied
    masked_lm.tie_weights()
    return masked_lm


def saved_head(folder: Path) -> dict[str, Tensor] | None:
    """Returns a folder's masked-LM head without the tied decoder, by our names; ``None`` if it has none.

    Raises:
        SpectraError: the folder is damaged.
    """
    weights_folder = transformer_folder(folder)
    kind = check_folder(folder)
    prefix = _HEAD if kind == "spectra_nsa" else _BERT_HEAD
    shapes = weight_shapes(weights_folder)
    if shapes is None:
        pickled = torch.load(weights_folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
        head = {name: value for name, value in pickled.items() if name.startswith(prefix)}
    else:
        names = [name for name in shapes if name.startswith(prefix) and "decoder.weight" not in name]
        head = _read_weights(weights_folder, names)
    head = {name.replace("gamma", "weight").replace("beta", "bias"): value for name, value in head.items()}
    if prefix + "bias" not in head:
        return None
    if kind == "bert":
        return masked_lm_head_from_bert(head)
    return {name.removeprefix(_HEAD): value for name, value in head.items()}


def save_masked_lm(model: SpectraForMaskedLM, sentence_model: SpectraSentenceTransformer, folder: Path) -> None:
    """Writes a folder that opens both as a masked LM in transformers and as a sentence model here.

    Args:
        model: the trained masked LM.
        sentence_model: the sentence model that shares its weights, with tokenizer, prompts and length limit.
        folder: an existing folder.
    """
    module = sentence_model[0]
    module.model = model  # `save_pretrained` writes this model's weights, head included
    try:
        sentence_model.save_pretrained(str(folder), create_model_card=False)
    finally:
        module.model = model.model


def _read_weights(folder: Path, names: list[str]) -> dict[str, Tensor]:
    """Reads the named weights from a folder's safetensors files."""
    weights: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            stored = set(file.keys())
            weights |= {name: file.get_tensor(name) for name in names if name in stored}
    return weights
