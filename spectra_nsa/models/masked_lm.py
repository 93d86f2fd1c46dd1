"""The masked-LM model from a BERT masked-LM checkpoint, for pretraining and learned-sparse encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from spectra_nsa.core.files import atomic_folder, check_replaceable
from spectra_nsa.models.bert_adapter import (
    config_from_bert,
    config_to_bert,
    encoder_from_bert,
    encoder_to_bert,
    fill_encoder,
    masked_lm_head_from_bert,
    masked_lm_head_to_bert,
)
from spectra_nsa.models.bert_export import refuse_other_shapes
from spectra_nsa.models.checks import check_folder, resolve_folder, transformer_folder, weight_shapes
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraForMaskedLM
from spectra_nsa.models.sentence import SpectraSentenceTransformer

_HEAD = "lm_head."
_BERT_HEAD = "cls.predictions."


def warm_start_masked_lm(checkpoint: str | Path) -> SpectraForMaskedLM:
    """A `SpectraForMaskedLM` that returns a BERT checkpoint's logits.

    Where the checkpoint has no masked-LM head (a sentence encoder, say), transformers initialises one and says so;
    the encoder is exact all the same.

    Args:
        checkpoint: a local folder or a Hub name.

    Raises:
        SpectraError: not found, damaged, or another architecture.
    """
    folder = resolve_folder(checkpoint)
    check_folder(folder)
    bert = BertForMaskedLM.from_pretrained(folder, local_files_only=True)
    weights = bert.state_dict()
    model = SpectraForMaskedLM(SpectraConfig(**config_from_bert(bert.config.to_dict())))
    inner = {name.removeprefix("bert."): value for name, value in weights.items() if name.startswith("bert.")}
    fill_encoder(model.model.encoder, encoder_from_bert(inner, bert.config.num_hidden_layers))
    head = masked_lm_head_from_bert(weights) | {"decoder.weight": inner["embeddings.word_embeddings.weight"]}
    model.lm_head.load_state_dict(head)
    with torch.no_grad():
        model.tie_weights()
    return model.eval()


def with_masked_lm_head(model: SpectraSentenceTransformer, folder: Path | None) -> SpectraForMaskedLM:
    """The same weights under a masked-LM head.

    Args:
        model: its encoder and heads are shared, not copied.
        folder: of the checkpoint that it comes from, whose masked-LM head is taken where there is one; ``None``, or
            one without, leaves the head random.

    Raises:
        SpectraError: the folder is damaged.
    """
    masked = SpectraForMaskedLM(model.spectra.config)
    masked.model = model.spectra
    head = saved_head(folder) if folder is not None else None
    if head is not None:
        masked.lm_head.load_state_dict(head, strict=False)  # the decoder is tied
    masked.tie_weights()
    return masked


def saved_head(folder: Path) -> dict[str, Tensor] | None:
    """A folder's masked-LM head, under our names and without the tied decoder; ``None`` where it has none.

    Raises:
        SpectraError: the folder is damaged.
    """
    place = transformer_folder(folder)
    kind = check_folder(folder)
    prefix = _HEAD if kind == "spectra_nsa" else _BERT_HEAD
    shapes = weight_shapes(place)
    if shapes is None:
        found = torch.load(place / "pytorch_model.bin", map_location="cpu", weights_only=True)
        found = {name: value for name, value in found.items() if name.startswith(prefix)}
    else:
        names = [name for name in shapes if name.startswith(prefix) and "decoder.weight" not in name]
        found = _read(place, names)
    found = {name.replace("gamma", "weight").replace("beta", "bias"): value for name, value in found.items()}
    if prefix + "bias" not in found:
        return None
    if kind == "bert":
        return masked_lm_head_from_bert(found)
    return {name.removeprefix(_HEAD): value for name, value in found.items()}


def _read(folder: Path, names: list[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            held = set(weights.keys())
            found |= {name: weights.get_tensor(name) for name in names if name in held}
    return found


def save_masked_lm(model: SpectraForMaskedLM, around: SpectraSentenceTransformer, folder: Path) -> None:
    """Writes a folder that is both: a masked LM to transformers, and a Spectra model, to be trained further, to us.

    Args:
        model: what was trained.
        around: the sentence model that shares its weights: tokenizer, prompts, length limit.
        folder: where to; it exists.
    """
    module = around[0]
    module.model = model  # what the sentence model writes beside its configuration
    try:
        around.save_pretrained(str(folder), create_model_card=False)
    finally:
        module.model = model.model


def export_bert_masked_lm(model: SpectraForMaskedLM, tokenizer: Any, folder: str | Path) -> Path:
    """Writes a plain `BertForMaskedLM` folder, which needs nothing of ours.

    Args:
        model: one of BERT's shape (post-norm, absolute positions, gelu, plain attention).
        tokenizer: saved beside it.
        folder: where to; a model's folder that stands there is replaced when all is written.

    Raises:
        SpectraError: the model has another shape.
        UsageError: something else than a model stands at `folder`.
    """
    check_replaceable(folder, "config.json")
    refuse_other_shapes(model.config, pooled=False)
    bert = BertForMaskedLM(BertConfig(**config_to_bert(model.config)))
    inner = encoder_to_bert(model.model.encoder.state_dict(), model.config.num_hidden_layers)
    weights = {f"bert.{name}": value for name, value in inner.items()}
    bert.load_state_dict(weights | masked_lm_head_to_bert(model.lm_head.state_dict()), strict=False)
    bert.tie_weights()
    with atomic_folder(folder) as temporary:
        bert.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return Path(folder)
