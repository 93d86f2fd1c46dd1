"""BERT's names for weights and settings, and ours, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spectra_nsa.core.errors import SpectraError

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
_SAME = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "pad_token_id",
]

_EMBEDDINGS = {
    "embeddings.tokens.weight": "embeddings.word_embeddings.weight",
    "embeddings.segments.weight": "embeddings.token_type_embeddings.weight",
    "embeddings.positions.weight": "embeddings.position_embeddings.weight",
    "embeddings.norm": "embeddings.LayerNorm",
}
_LAYER = {
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_HEAD = {
    "dense.weight": "transform.dense.weight",
    "dense.bias": "transform.dense.bias",
    "norm.weight": "transform.LayerNorm.weight",
    "norm.bias": "transform.LayerNorm.bias",
    "bias": "bias",
}
_QKV = ("query", "key", "value")


def config_from_bert(bert: Any) -> dict[str, Any]:
    """The fields of `SpectraConfig` that a `BertConfig` decides.

    Raises:
        SpectraError: a decoder, relative positions or an activation that this encoder lacks.
    """
    if getattr(bert, "is_decoder", False) or getattr(bert, "position_embedding_type", "absolute") != "absolute":
        raise SpectraError("this BERT is a decoder or has relative positions; only encoders with absolute ones load.")
    if bert.hidden_act not in ACTIVATIONS:
        raise SpectraError(f"activation {bert.hidden_act!r} is not supported; supported: {', '.join(ACTIVATIONS)}.")
    return {name: getattr(bert, name) for name in _SAME} | {"hidden_act": ACTIVATIONS[bert.hidden_act]}


def config_to_bert(config: Any) -> dict[str, Any]:
    """The keyword arguments of the `BertConfig` of a BERT-shaped `SpectraConfig`: the inverse of the above."""
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.hidden_act)
    return {name: getattr(config, name) for name in _SAME} | {"hidden_act": activation}


def _pairs(layers: int) -> list[tuple[str, str]]:
    """(our name, BERT's name) for everything but Q, K and V."""
    pairs = []
    for ours, theirs in _EMBEDDINGS.items():
        suffixes = ("",) if ours.endswith("weight") else (".weight", ".bias")
        pairs += [(ours + suffix, theirs + suffix) for suffix in suffixes]
    for index in range(layers):
        for ours, theirs in _LAYER.items():
            for suffix in (".weight", ".bias"):
                pairs.append((f"layers.{index}.{ours}{suffix}", f"encoder.layer.{index}.{theirs}{suffix}"))
    return pairs


def encoder_from_bert(bert: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Our encoder's weights from a `BertModel`'s (names without the ``bert.`` prefix).

    Raises:
        KeyError: a weight is missing.
    """
    weights = {ours: bert[theirs] for ours, theirs in _pairs(layers)}
    for index in range(layers):
        for suffix in ("weight", "bias"):
            parts = [bert[f"encoder.layer.{index}.attention.self.{part}.{suffix}"] for part in _QKV]
            weights[f"layers.{index}.attention.qkv.{suffix}"] = torch.cat(parts)
    return weights


def fill_encoder(encoder: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads a checkpoint's weights. What no BERT has keeps its start; what BERT has must be there."""
    missing, unexpected = encoder.load_state_dict(dict(weights), strict=False)
    new = (".mixer.", ".undecided.", ".gate.", "depth.")
    gaps = [name for name in missing if not any(part in name for part in new)]
    if gaps or unexpected:
        raise SpectraError(f"the checkpoint does not fit: missing {gaps}, unexpected {unexpected}.")


def encoder_to_bert(ours: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The inverse of `encoder_from_bert`."""
    weights = {theirs: ours[name] for name, theirs in _pairs(layers)}
    for index in range(layers):
        for suffix in ("weight", "bias"):
            parts = ours[f"layers.{index}.attention.qkv.{suffix}"].chunk(3)
            for part, value in zip(_QKV, parts, strict=True):
                weights[f"encoder.layer.{index}.attention.self.{part}.{suffix}"] = value.contiguous()
    return weights


def masked_lm_head_from_bert(bert: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our masked-LM head's weights from a `BertForMaskedLM`'s ``cls.predictions.*``; the decoder is tied."""
    return {ours: bert[f"cls.predictions.{theirs}"] for ours, theirs in _HEAD.items()}


def masked_lm_head_to_bert(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `masked_lm_head_from_bert`."""
    return {f"cls.predictions.{theirs}": ours[name] for name, theirs in _HEAD.items()}
