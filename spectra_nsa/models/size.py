"""A model's parts, parameters, FLOPs and memory, computed from its config without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra_nsa.config.presets import NAMES, load_preset
from spectra_nsa.core.errors import opening, unknown_name
from spectra_nsa.core.files import read_json
from spectra_nsa.encoder.kinds import Weights, encoder_weights, layer_activations
from spectra_nsa.heads.kinds import head_weights
from spectra_nsa.heads.spec import ModelSpec, default_dims

if TYPE_CHECKING:
    from spectra_nsa.models.open import ModelFolder

# Peak dense bf16 (T4: fp16) TFLOP/s from the manufacturer's data sheets.
GPUS: Mapping[str, float] = {"T4": 65, "L4": 121, "A10": 125, "RTX4090": 165, "A100": 312, "H100": 989, "H200": 989}
_POOLING_KEYS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
}
UTILIZATION = 0.40  # fraction of the peak that a well-tuned training run reaches


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A training workload to estimate.

    Attributes:
        rows: number of training rows (triplets or pairs).
        epochs: passes over the rows.
        batch: rows in memory at a time.
        texts: texts per row: 3 for triplets, 2 for pairs.
        length: tokens per text; ``None`` for the model's maximum.
        gpu: a name from `GPUS`.
        checkpointing: whether activations are recomputed in the backward pass.
    """

    rows: int = 98_000
    epochs: float = 3
    batch: int = 8
    texts: int = 3
    length: int | None = None
    gpu: str = "A100"
    checkpointing: bool = False


def spec_of(preset_or_model: str) -> ModelSpec:
    """Reads the shape of a size preset, a saved model, or a BERT-architecture checkpoint as warm-started.

    Raises:
        UsageError: the name is neither a preset nor a folder or Hub name.
        SpectraError: the model is missing or of another architecture.
    """
    if preset_or_model.lower() in {name.lower() for name in NAMES}:
        return ModelSpec(**load_preset(preset_or_model).model)
    if not Path(preset_or_model).exists() and "/" not in preset_or_model:
        raise unknown_name("size preset or model", preset_or_model, NAMES)
    from spectra_nsa.models.open import find_model

    return model_spec(find_model(preset_or_model))


def is_checkpoint(preset_or_model: str) -> bool:
    """Returns whether what `spec_of` reads is a checkpoint without our heads, which a warm start adds."""
    if preset_or_model.lower() in {name.lower() for name in NAMES}:
        return False
    from spectra_nsa.models.open import find_model

    return find_model(preset_or_model).kind == "bert"


def model_spec(files: ModelFolder) -> ModelSpec:
    """Reads the shape of a saved model, or of a BERT-architecture checkpoint as warm-started, without loading it."""
    with opening(files.name):
        if files.kind == "bert":
            return _warm_started(files.folder)
        values = files.config
        return ModelSpec.from_config(values | {"max_length": _max_length(files.folder) or values.get("max_length")})


def _warm_started(folder: Path) -> ModelSpec:
    """Reads the shape that a warm start gives a BERT, from the files of its transformer and of the modules after it."""
    from spectra_nsa.models.bert_adapter import POOLING, config_from_bert
    from spectra_nsa.models.checks import transformer_folder

    fields = config_from_bert(read_json(transformer_folder(folder) / "config.json"))
    length = _max_length(folder) or fields["max_position_embeddings"]
    fields |= {"max_length": min(length, fields["max_position_embeddings"]), "normalize": False}
    for module in _json(folder / "modules.json", []):
        kind, facts = module["type"].rpartition(".")[2], _json(folder / module["path"] / "config.json", {})
        if kind == "Pooling":
            fields["pooling"] = POOLING.get(_pooling_modes(facts), "mean")
            fields["pooling_skips_prompt"] = not facts.get("include_prompt", True)
        elif kind == "Normalize":
            fields["normalize"] = True
        elif kind == "Dense":
            dims = default_dims(facts["out_features"])
            fields |= {"semantic_projection": True, "semantic_bias": facts.get("bias", True), "semantic_dims": dims}
    return ModelSpec(**fields)


def _max_length(folder: Path) -> int | None:
    """Returns the longest text in tokens that a model's files set, as sentence-transformers reads them."""
    from spectra_nsa.models.checks import transformer_folder

    inner = transformer_folder(folder)
    length = _json(inner / "sentence_bert_config.json", {}).get("max_seq_length")
    length = length or _json(inner / "tokenizer_config.json", {}).get("model_max_length")
    return int(length) if length and length < 1e9 else None  # transformers writes 1e30 for no limit


def _pooling_modes(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the modes of a pooling module; before version 6 each had a key of its own."""
    modes = facts.get("pooling_mode")
    if modes is None:
        modes = [mode for mode in ("mean", "cls", "max") if facts.get(_POOLING_KEYS[mode])]
    return (modes,) if isinstance(modes, str) else tuple(modes)


def _json(path: Path, default: Any) -> Any:
    return read_json(path) if path.is_file() else default


def inspect_model(spec: ModelSpec, workload: Workload | None = None) -> dict[str, Any]:
    """Computes parts, parameters, FLOPs, memory and training hours.

    Args:
        spec: the model's shape.
        workload: the training run to estimate; ``None`` for the default one.

    Returns:
        ``parameters`` (encoder and heads), ``parts`` (parameters by part), ``encoder_active`` (weights of the encoder's
        matrices that a token passes; embeddings are looked up and do not count), ``flops_per_token`` (one forward pass
        at full length), ``memory_gb`` (``inference``: bf16 weights and a batch of 32; ``training``: AdamW in mixed
        precision with the workload's batch), ``hours_estimate``, ``gpu``, ``shape``, and ``how`` (one sentence per
        estimate on how it is computed).

    Raises:
        UsageError: the GPU is not in `GPUS`.
    """
    workload = workload or Workload()
    if workload.gpu not in GPUS:
        raise unknown_name("GPU", workload.gpu, GPUS)
    length = workload.length or spec.max_length or spec.max_position_embeddings
    weights = encoder_weights(spec.encoder_spec()) | head_weights(spec)
    parameters = sum(part.total for part in weights.values())
    flops = int(flops_per_token(spec, length))
    tokens = workload.rows * workload.epochs * workload.texts * length
    factor = 4 if workload.checkpointing else 3
    seconds = tokens * flops * factor / (GPUS[workload.gpu] * 1e12 * UTILIZATION)
    batch_tokens = workload.batch * workload.texts * length
    inference = 2 * parameters + 2 * 32 * length * (6 * spec.hidden_size + 3 * spec.intermediate_size)
    training = 16 * parameters + batch_tokens * _activation_bytes(spec, workload.checkpointing)
    return {
        "parameters": parameters,
        "parts": {name: part.total for name, part in weights.items() if part.total},
        "encoder_active": sum(part.matrices for part in encoder_weights(spec.encoder_spec()).values()),
        "flops_per_token": flops,
        "memory_gb": {"inference": round(inference / 1e9, 2), "training": round(training / 1e9, 2)},
        "hours_estimate": round(seconds / 3600, 2),
        "gpu": workload.gpu,
        "shape": shape_summary(spec),
        "how": [
            f"FLOPs: 2 per weight of every matrix and 4·T·D per layer for attention, at T = {length} tokens.",
            "Inference memory: bf16 weights and the activations of one layer for 32 texts of full length.",
            f"Training memory: 16 bytes per parameter (fp32 weights, gradients, AdamW) and bf16 activations of "
            f"{workload.batch} × {workload.texts} texts of {length} tokens"
            f"{', recomputed in the backward pass' if workload.checkpointing else ''}.",
            f"Hours: {workload.rows:,} rows × {workload.epochs:g} epochs × {workload.texts} texts × {length} tokens × "
            f"{factor} × forward FLOPs, at {UTILIZATION:.0%} of the {workload.gpu}'s {GPUS[workload.gpu]:g} TFLOP/s. "
            "An upper bound on the tokens (every text at full length), not a measurement.",
        ],
    }


def shape_summary(spec: ModelSpec) -> dict[str, Any]:
    """Returns the main fields of a shape."""
    experts, layers = spec.encoder_spec().experts, spec.encoder_spec().expert_layers
    chosen = "all mixed" if experts.router == "smear" else experts.top_k
    per = f"{chosen} for each {'text' if experts.by_text else 'token'}"
    return {
        "hidden_size": spec.hidden_size,
        "layers": spec.num_hidden_layers,
        "heads": spec.num_attention_heads,
        "ffn_size": spec.intermediate_size,
        "norm": spec.norm,
        "position": spec.position,
        "ffn": spec.ffn,
        **({"experts": f"{experts.count} in layers {layers}, {per}"} if layers else {}),
        "attention": spec.attention,
        **({"layer_routing": True} if spec.layer_routing else {}),
        "pooling": spec.pooling,
        **({"pooling_kinds": ", ".join(spec.pooling_kinds)} if spec.pooling_kinds else {}),
        **({"adapters": f"{spec.adapters} of width {spec.adapter_size}"} if spec.adapters else {}),
        "semantic_dims": spec.semantic_dims,
        "entity_in_embedding": spec.entity,
        "codes_fitted": spec.codes_fitted,
        "anomaly": spec.anomaly_method,
        "vocab_size": spec.vocab_size,
        "max_length": spec.max_length or spec.max_position_embeddings,
    }


def flops_per_token(spec: ModelSpec, length: float) -> float:
    """Computes the FLOPs per token of one forward pass through the encoder.

    2 per weight of every matrix, and 4·T·D per layer for attention.

    Args:
        spec: the model's shape.
        length: T, tokens per text; for texts of several lengths Σ T² / Σ T.
    """
    encoder = spec.encoder_spec()
    matrices = sum(encoder_weights(encoder).values(), Weights()).matrices
    return 2 * matrices + 4 * length * encoder.hidden_size * encoder.layers


def training_gb(parameters: int, layers: int, width: int, workload: Workload) -> float:
    """Estimates the memory of training any encoder in GB.

    Weights, gradients and the optimizer's state in fp32, and 34 bytes for each token, layer and dimension (Korthikanti
    et al. 2022). `inspect_model` is more exact for our own.
    """
    tokens = workload.batch * workload.texts * (workload.length or 512)
    activations = 34 * width * tokens * (1 if workload.checkpointing else layers)
    return round((16 * parameters + activations) / 1e9, 2)


def _activation_bytes(spec: ModelSpec, checkpointing: bool) -> int:
    """Computes the bytes of bf16 activations per token that are kept for the backward pass."""
    layer = 2 * layer_activations(spec.encoder_spec())
    if checkpointing:
        return 2 * spec.hidden_size * spec.num_hidden_layers + layer
    return layer * spec.num_hidden_layers
