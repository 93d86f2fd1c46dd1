"""What a model is made of and what it costs, from its config alone: nothing is loaded, nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spectra_nsa.config.presets import NAMES, load_preset
from spectra_nsa.core.errors import unknown_name
from spectra_nsa.models.bert_adapter import config_from_bert
from spectra_nsa.models.checks import check_folder, resolve_folder, transformer_folder
from spectra_nsa.models.config import SpectraConfig
from spectra_nsa.models.model import SpectraModel

# Peak dense bf16 (T4: fp16) TFLOP/s from the makers' data sheets.
GPUS: Mapping[str, float] = {"T4": 65, "L4": 121, "A10": 125, "RTX4090": 165, "A100": 312, "H100": 989, "H200": 989}
UTILISATION = 0.40  # share of the peak that a well-tuned training run reaches


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained, for the estimates.

    Attributes:
        rows: rows of texts: triplets, or pairs.
        epochs: passes over them.
        batch: rows in memory at a time.
        texts: texts a row: 3 in a triplet, 2 in a pair.
        length: tokens a text; ``None`` for the model's longest.
        gpu: a name from `GPUS`.
        checkpointing: whether activations are recomputed.
    """

    rows: int = 98_000
    epochs: float = 3
    batch: int = 8
    texts: int = 3
    length: int | None = None
    gpu: str = "A100"
    checkpointing: bool = False


def config_of(preset_or_model: str) -> SpectraConfig:
    """The config of a size preset, a saved model, or a BERT-architecture checkpoint as it would be warm-started."""
    known = {name.lower() for name in NAMES}
    if preset_or_model.lower() in known:
        return SpectraConfig(**load_preset(preset_or_model).model)
    if not Path(preset_or_model).exists() and "/" not in preset_or_model:
        raise unknown_name("size preset or model", preset_or_model, NAMES)
    folder = resolve_folder(preset_or_model)
    if check_folder(folder) == "bert":
        from transformers import BertConfig

        return SpectraConfig(**config_from_bert(BertConfig.from_pretrained(transformer_folder(folder))))
    return SpectraConfig.from_pretrained(folder)


def inspect_model(config: SpectraConfig, workload: Workload | None = None) -> dict[str, Any]:
    """Parts, parameters, FLOPs, memory and hours.

    Returns:
        ``parameters`` (backbone and heads), ``parts`` (parameters by part), ``flops_per_token`` (one forward pass at
        the full length), ``memory_gb`` (``inference``: bf16 weights and a batch of 32; ``training``: AdamW in mixed
        precision with the workload's batch), ``hours_estimate``, and ``how``, the sentences that say how each was made.

    Raises:
        UsageError: a GPU that is not in the table.
    """
    workload = workload or Workload()
    if workload.gpu not in GPUS:
        raise unknown_name("GPU", workload.gpu, GPUS)
    with torch.device("meta"):
        model = SpectraModel(config)
    length = workload.length or config.max_length or config.max_position_embeddings
    parameters = sum(weight.numel() for weight in model.parameters())
    flops = int(flops_per_token(model, length))
    tokens = workload.rows * workload.epochs * workload.texts * length
    factor = 4 if workload.checkpointing else 3
    seconds = tokens * flops * factor / (GPUS[workload.gpu] * 1e12 * UTILISATION)
    batch_tokens = workload.batch * workload.texts * length
    inference = 2 * parameters + 2 * 32 * length * (6 * config.hidden_size + 3 * config.intermediate_size)
    training = 16 * parameters + batch_tokens * _activation_bytes(config, workload.checkpointing)
    return {
        "parameters": parameters,
        "parts": _parts(model),
        "flops_per_token": flops,
        "memory_gb": {"inference": round(inference / 1e9, 2), "training": round(training / 1e9, 2)},
        "hours_estimate": round(seconds / 3600, 2),
        "gpu": workload.gpu,
        "shape": config_summary(config),
        "how": [
            f"FLOPs: 2 per weight of every matrix and 4·T·D per layer for attention, at T = {length} tokens.",
            "Inference memory: bf16 weights and the activations of one layer for 32 texts of full length.",
            f"Training memory: 16 bytes a parameter (fp32 weights, gradients, AdamW) and bf16 activations of "
            f"{workload.batch} × {workload.texts} texts"
            f"{', recomputed in the backward pass' if workload.checkpointing else ''}.",
            f"Hours: {workload.rows:,} rows × {workload.epochs:g} epochs × {workload.texts} texts × {length} tokens × "
            f"{factor} × forward FLOPs, at {UTILISATION:.0%} of the {workload.gpu}'s {GPUS[workload.gpu]:g} TFLOP/s. "
            "An upper bound on the tokens (every text at full length), not a measurement.",
        ],
    }


def config_summary(config: SpectraConfig) -> dict[str, Any]:
    """The facts of a shape that people ask for first."""
    return {
        "hidden_size": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "ffn_size": config.intermediate_size,
        "norm": config.norm,
        "position": config.position,
        "ffn": config.ffn,
        "attention": config.attention,
        "pooling": config.pooling,
        "semantic_dims": config.semantic_dims,
        "entity_in_embedding": config.entity,
        "codes_fitted": config.codes_fitted,
        "anomaly": config.anomaly_method,
        "vocab_size": config.vocab_size,
        "max_length": config.max_length or config.max_position_embeddings,
    }


def _parts(model: SpectraModel) -> dict[str, int]:
    def count(part: nn.Module) -> int:
        return sum(weight.numel() for weight in part.parameters())

    layers: list[Any] = list(model.encoder.layers)
    parts = {
        "embeddings": count(model.encoder.embeddings),
        "attention": sum(count(layer.attention.qkv) + count(layer.attention.out) for layer in layers),
        "spectral path": sum(
            count(layer.attention) - count(layer.attention.qkv) - count(layer.attention.out) for layer in layers
        ),
        "ffn": sum(count(layer.ffn) for layer in layers),
        "norms": sum(count(layer.attention_norm) + count(layer.ffn_norm) for layer in layers)
        + count(model.encoder.final_norm),
        "depth mixing": count(model.encoder.depth) if model.encoder.depth is not None else 0,
        "pooling": count(model.pooling),
        "semantic head": count(model.semantic),
        "entity head": count(model.entity) + count(model.fusion),
        "ranking head": count(model.ranking),
        "anchors": count(model.anchors),
        "hash bridge": count(model.bridge),
        "anomaly head": count(model.anomaly),
    }
    return {name: number for name, number in parts.items() if number}


def flops_per_token(model: SpectraModel, length: float) -> float:
    """Of one forward pass through the encoder: 2 per weight of every matrix, and 4·T·D a layer for attention.

    Args:
        model: of which the shapes are read.
        length: T, tokens a text; texts of several lengths count together at Σ T² / Σ T.
    """
    config = model.config
    matrices = sum(part.weight.numel() for part in model.encoder.modules() if isinstance(part, nn.Linear))
    return 2 * matrices + 4 * length * config.hidden_size * config.num_hidden_layers


def _activation_bytes(config: SpectraConfig, checkpointing: bool) -> int:
    """Bytes kept for the backward pass, per token: in each layer 9 vectors of D (inputs of the matrices and norms, Q,
    K, V, attention's output) and the feed-forward's inner values (2 of them, 4 when gated), in bf16."""
    inner = 4 if config.ffn == "geglu" else 2
    layer = 2 * (9 * config.hidden_size + inner * config.intermediate_size)
    if checkpointing:
        return 2 * config.hidden_size * config.num_hidden_layers + layer
    return layer * config.num_hidden_layers
