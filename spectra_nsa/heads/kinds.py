"""The names of the outputs, the kinds of pooling, and what pooling and the heads cost. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectra_nsa.core.errors import unknown_name
from spectra_nsa.encoder.kinds import Kind, Weights, linear, numbers

if TYPE_CHECKING:
    from spectra_nsa.heads.spec import ModelSpec

OUTPUTS = (
    "embedding",
    "semantic",
    "entity",
    "ranking",
    "anchor64",
    "fast",
    "fast_logits",
    "anomaly",
    "anomaly_p",
    "is_ood",
)
# Of models with experts, (B, L) or (B, L, E) for L layers with E experts: sums over the tokens of each text.
ROUTING_OUTPUTS = ("router_load", "router_probs", "router_square", "router_entropy", "router_margin")
# Of models whose texts choose: the gate over depths, over further poolings and over adapters, 1 for each if undecided.
GATE_OUTPUTS = ("depth_gate", "pooling_gate", "adapter_gate")
ALL_OUTPUTS = (*OUTPUTS, *ROUTING_OUTPUTS, *GATE_OUTPUTS)
# Of sparse encoders: the weights of all terms (B, V), and ids and weights of the strongest (B, K).
SPARSE_OUTPUTS = ("sparse", "sparse_ids", "sparse_values")
SHORTENED = ("embedding", "semantic")  # outputs whose prefixes are valid vectors
ANCHORS = 64
BITS = 256
WIDTHS = (64, 128, 256)  # bits of the codes: each a prefix of the next, and a code of its own


@dataclass(frozen=True, kw_only=True)
class PoolingKind(Kind):
    """A kind of pooling.

    Attributes:
        width: width of the pooled vector, as a multiple of a token state's.
        needs_entropy: whether it reads the entropy of the top layer's attention.
    """

    width: int = 1
    needs_entropy: bool = False


def _none(spec: object) -> Weights:
    return Weights()


POOLINGS: Mapping[str, PoolingKind] = {
    "mean": PoolingKind(path="heads.pooling:MeanPooling", weights=_none),
    "cls": PoolingKind(path="heads.pooling:ClsPooling", weights=_none),
    "max": PoolingKind(path="heads.pooling:MaxPooling", weights=_none),
    "mean_max": PoolingKind(path="heads.pooling:MeanMaxPooling", weights=_none, width=2),
    "attention": PoolingKind(path="heads.pooling:AttentionPooling", weights=lambda spec: numbers(spec.hidden_size)),
    "entropy": PoolingKind(path="heads.pooling:EntropyPooling", weights=lambda spec: numbers(1), needs_entropy=True),
}


def outputs_of(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the names of all outputs of a model."""
    has = (spec.layer_routing, bool(spec.pooling_kinds), bool(spec.adapters))
    gates = [name for name, there in zip(GATE_OUTPUTS, has, strict=True) if there]
    return (*OUTPUTS, *(ROUTING_OUTPUTS if spec.ffn == "moe" else ()), *gates)


def graph_name(output: str) -> str:
    """Returns the name of an output in a graph: `sentence_embedding`, which other tools read, for the default one."""
    return "sentence_embedding" if output == "embedding" else output


def check_outputs(spec: ModelSpec, names: Iterable[str]) -> None:
    """Checks that a model has outputs of these names.

    Raises:
        UsageError: it has not.
    """
    known = outputs_of(spec)
    for name in names:
        if name not in known:
            raise unknown_name("output", name, known)


def _expert_pooling(spec: ModelSpec) -> Weights:
    """Counts the gate over further poolings, and the adapters."""
    kinds, adapters = spec.pooling_kinds or [], spec.adapters
    poolings = sum((POOLINGS[kind].weights(spec.encoder_spec()) for kind in kinds), Weights())
    gate = linear(spec.hidden_size, len(kinds), bias=False) + numbers(len(kinds))
    adapter = linear(spec.pooled_size, spec.adapter_size) + linear(spec.adapter_size, spec.pooled_size, bias=False)
    return poolings + gate + (adapter + numbers(spec.pooled_size)) * adapters


def head_weights(spec: ModelSpec) -> dict[str, Weights]:
    """Counts the weights of pooling and of each head, as `spectra inspect` names them."""
    hidden, semantic, entity = spec.hidden_size, spec.projection_dim, spec.entity_dims[0]
    projection = linear(spec.pooled_size, semantic, bias=spec.semantic_bias)
    entity_head = numbers(hidden) + numbers(1) + linear(hidden, entity, bias=False)
    fusion = linear(entity, semantic, bias=False) + numbers(1)
    bridge = linear(semantic + entity, BITS) + linear(BITS, semantic, bias=False) + numbers(len(WIDTHS))
    return {
        "pooling": POOLINGS[spec.pooling].weights(spec.encoder_spec()),
        "expert pooling": _expert_pooling(spec),
        "semantic head": projection if spec.semantic_projection else Weights(),
        "entity head": entity_head + fusion,
        "ranking head": linear(semantic, semantic, bias=False),
        "anchors": linear(semantic, ANCHORS, bias=False),
        "hash bridge": bridge,
        "anomaly head": linear(semantic, spec.anomaly_prototypes, bias=False),
    }
