"""Conversion of configurations and weight names between BERT and Spectra models, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spectra_nsa.core.errors import SpectraError

if TYPE_CHECKING:
    from torch import Tensor

    from spectra_nsa.encoder.encoder import Encoder
    from spectra_nsa.heads.spec import ModelSpec

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}
# Pooling modes of sentence-transformers → our pooling.
POOLING = {("mean",): "mean", ("cls",): "cls", ("max",): "max", ("mean", "max"): "mean_max"}
# Fields with the same name and meaning in both configurations, with the defaults of transformers' `BertConfig`.
_BERT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "pad_token_id": 0,
}

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


def config_from_bert(bert: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `ModelSpec` that a BERT's `config.json` sets; missing keys take BERT's defaults.

    Raises:
        SpectraError: the BERT is a decoder, has relative positions, or an activation that this encoder lacks.
    """
    if bert.get("is_decoder", False) or bert.get("position_embedding_type", "absolute") != "absolute":
        raise SpectraError(
            "this BERT is a decoder or has relative positions; only encoders with absolute positions can be loaded."
        )
    activation = bert.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise SpectraError(f"activation {activation!r} is not supported; supported: {', '.join(ACTIVATIONS)}.")
    fields = {name: bert.get(name, default) for name, default in _BERT_DEFAULTS.items()}
    return fields | {"hidden_act": ACTIVATIONS[activation]}


def config_to_bert(spec: ModelSpec) -> dict[str, Any]:
    """Returns the `BertConfig` fields of a BERT-shaped model; the inverse of `config_from_bert`."""
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == spec.hidden_act)
    return {name: getattr(spec, name) for name in _BERT_DEFAULTS} | {"hidden_act": activation}


def _name_pairs(layers: int) -> list[tuple[str, str]]:
    """Lists (our name, BERT's name) for all encoder weights except Q, K and V."""
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
    """Converts a `BertModel`'s weights, named without the ``bert.`` prefix, to our encoder's.

    Raises:
        KeyError: a weight is missing.
    """
    import torch

    weights = {ours: bert[theirs] for ours, theirs in _name_pairs(layers)}
    for index in range(layers):
        for suffix in ("weight", "bias"):
            qkv = [bert[f"encoder.layer.{index}.attention.self.{name}.{suffix}"] for name in _QKV]
            weights[f"layers.{index}.attention.qkv.{suffix}"] = torch.cat(qkv)
    return weights


def load_bert_weights(encoder: Encoder, weights: Mapping[str, Tensor]) -> None:
    """Loads converted BERT weights into an encoder. Parts that BERT lacks keep their initial values.

    Raises:
        SpectraError: a weight is missing or unexpected.
    """
    from spectra_nsa.encoder.part import EncoderPart

    missing, unexpected = encoder.load_state_dict(dict(weights), strict=False)
    parts = [(path, part) for path, part in encoder.named_modules() if isinstance(part, EncoderPart)]
    new_prefixes = tuple(f"{path}.{name}.".lstrip(".") for path, part in parts for name in part.new_parts)
    missing = [name for name in missing if not name.startswith(new_prefixes)]
    if missing or unexpected:
        raise SpectraError(f"the checkpoint does not fit the model: missing {missing}, unexpected {unexpected}.")


def encoder_to_bert(ours: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Converts our encoder's weights to a `BertModel`'s; the inverse of `encoder_from_bert`."""
    weights = {theirs: ours[name] for name, theirs in _name_pairs(layers)}
    for index in range(layers):
        for suffix in ("weight", "bias"):
            qkv = ours[f"layers.{index}.attention.qkv.{suffix}"].chunk(3)
            for name, value in zip(_QKV, qkv, strict=True):
                weights[f"encoder.layer.{index}.attention.self.{name}.{suffix}"] = value.contiguous()
    return weights


def masked_lm_head_from_bert(bert: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts a `BertForMaskedLM`'s ``cls.predictions.*`` to our masked-LM head, without the tied decoder."""
    return {ours: bert[f"cls.predictions.{theirs}"] for ours, theirs in _HEAD.items()}


def masked_lm_head_to_bert(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Converts our masked-LM head to a `BertForMaskedLM`'s; the inverse of `masked_lm_head_from_bert`."""
    return {f"cls.predictions.{theirs}": ours[name] for name, theirs in _HEAD.items()}
