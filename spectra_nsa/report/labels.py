"""Readable labels of the keys in `metrics.jsonl` and in the JSON of `inspect` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping

LABELS: Mapping[str, str] = {
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm",
    "pairs_per_second": "pairs/s",
    "tokens_per_second": "tokens/s",
    "padding_waste": "padding",
    "matmul_share": "of peak matmul speed",
    "memory_gb": "memory (GB)",
    "gpu_memory_gb": "GPU memory (GB)",
    "seconds": "time",
    # health of the vectors
    "rank": "effective rank",
    "rank_share": "effective rank ÷ its maximum",
    "entropy": "entropy of the spectrum",
    "mean_cosine": "mean cosine",
    "near_duplicates": "near-duplicate vectors",
    "non_finite": "NaN or infinite vectors",
    "anchors_used": "spectral anchors in use",
    "anchors_entropy": "spectral anchor entropy",
    "bits_balance": "code bit balance",
    "bits_dead": "constant code bits",
    "bits_correlation": "code bit correlation",
    # a model's parts, size and shape
    "parts.anchors": "spectral anchors",
    "parts.hash bridge": "binary code head",
    "encoder_active": "encoder weights at work for a token",
    "flops_per_token": "FLOPs per token",
    "hours_estimate": "training time (hours)",
    "memory_gb.inference": "memory for inference (GB)",
    "memory_gb.training": "memory for training (GB)",
    "hidden_size": "hidden size",
    "ffn_size": "feed-forward size",
    "ffn": "feed-forward",
    "layer_routing": "layers mixed by text",
    "pooling_kinds": "further poolings",
    "semantic_dims": "Matryoshka sizes",
    "entity_in_embedding": "entity vector in the embedding",
    "codes_fitted": "binary codes fitted",
    "shape.anomaly": "anomaly score fitted",
    "vocab_size": "vocabulary size",
    "max_length": "longest text (tokens)",
}
_PREFIXES = ("health_", "eval_", "grad_norm_", "shape.", "parts.")


def label(key: str) -> str:
    """Returns the label of a key; a key without one is its own label, without its prefix."""
    if key in LABELS:
        return LABELS[key]
    prefix = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), "")
    name = key.removeprefix(prefix)
    return LABELS.get(name, name.replace("_", " ") if prefix == "health_" else name)
