"""The kinds of parts an encoder is built from: the class of each and what it costs. Loads no torch.

A new kind is a class in its module and an entry here; the spec's validation, the encoder and the size arithmetic read
these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from spectra_nsa.encoder.experts.spec import HASH_ROUTERS

if TYPE_CHECKING:
    from spectra_nsa.encoder.spec import EncoderSpec

POINTS = 8  # control points of the spectral filter's octave shape
CONV_WIDTH = POINTS + 1  # tokens under the convolution


@dataclass(frozen=True)
class Weights:
    """A count of weights.

    Attributes:
        total: all of them.
        matrices: those in matrices that multiply each token's state: 2 FLOPs each per token.
    """

    total: int = 0
    matrices: int = 0

    def __add__(self, other: Weights) -> Weights:
        return Weights(self.total + other.total, self.matrices + other.matrices)

    def __sub__(self, other: Weights) -> Weights:
        return Weights(self.total - other.total, self.matrices - other.matrices)

    def __mul__(self, times: int) -> Weights:
        return Weights(times * self.total, times * self.matrices)


def linear(inputs: int, outputs: int, *, bias: bool = True) -> Weights:
    """Returns the weights of a linear map."""
    return Weights(inputs * outputs + (outputs if bias else 0), inputs * outputs)


def numbers(count: int) -> Weights:
    """Returns the weights of anything that is not a matrix over token states: vectors, gates, tables."""
    return Weights(total=count)


def layer_norm(size: int) -> Weights:
    """Returns the weights of a layer norm."""
    return numbers(2 * size)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of a part.

    Attributes:
        path: ``module:Class`` inside the package; imported when the part is built.
        weights: counts its weights, per layer if layers have one each.
        activations: counts the numbers per token that it keeps for the backward pass.
    """

    path: str
    weights: Callable[[EncoderSpec], Weights]
    activations: Callable[[EncoderSpec], int] = lambda spec: 0

    def load(self) -> Any:
        """Imports the class."""
        module, _, name = self.path.partition(":")
        return getattr(import_module(f"spectra_nsa.{module}"), name)


def _experts(spec: EncoderSpec) -> Weights:
    """Counts a layer with experts; a token passes k of them, and a router that is learned.

    The router ``"smear"`` adds up all experts' weights once for each text, which is not counted; a token passes one.
    """
    experts = spec.experts
    one = FFNS[experts.kind].weights(replace(spec, ffn=experts.kind, ffn_size=experts.width(spec.ffn_size)))
    router = Weights() if experts.router in HASH_ROUTERS else linear(spec.hidden_size, experts.count, bias=False)
    bias = numbers(experts.count) if experts.balance_bias else Weights()
    shared = one + numbers(1) if experts.shared else Weights()
    active = 1 if experts.router == "smear" else experts.top_k
    return Weights(experts.count * one.total, active * one.matrices) + router + bias + shared


def _attention(spec: EncoderSpec) -> Weights:
    return linear(spec.hidden_size, 3 * spec.hidden_size) + linear(spec.hidden_size, spec.hidden_size)


def _spectral_attention(spec: EncoderSpec) -> Weights:
    second_path = MIXERS[spec.mixer].weights(spec) + linear(spec.heads, 1) + numbers(spec.hidden_size)
    return _attention(spec) + second_path


def _projections(spec: EncoderSpec) -> Weights:
    return linear(spec.hidden_size, spec.spectral_dim, bias=False) * 2


def _attention_activations(spec: EncoderSpec) -> int:
    return 9 * spec.hidden_size  # inputs of the matrices and norms, Q, K, V, the output


MIXERS: Mapping[str, Kind] = {
    "spectral": Kind(
        path="encoder.mixers:SpectralMixer",
        weights=lambda spec: _projections(spec) + numbers((2 + 2 * POINTS) * spec.spectral_dim),
    ),
    "conv": Kind(
        path="encoder.mixers:ConvMixer",
        weights=lambda spec: _projections(spec) + numbers((CONV_WIDTH + 1) * spec.spectral_dim),
    ),
}
ATTENTIONS: Mapping[str, Kind] = {
    "plain": Kind(path="encoder.attention:PlainAttention", weights=_attention, activations=_attention_activations),
    "spectral": Kind(
        path="encoder.attention:SpectralAttention", weights=_spectral_attention, activations=_attention_activations
    ),
}
FFNS: Mapping[str, Kind] = {
    "gelu": Kind(
        path="encoder.ffn:GeluFFN",
        weights=lambda spec: linear(spec.hidden_size, spec.ffn_size) + linear(spec.ffn_size, spec.hidden_size),
        activations=lambda spec: 2 * spec.ffn_size,
    ),
    "geglu": Kind(
        path="encoder.ffn:GegluFFN",
        weights=lambda spec: (
            linear(spec.hidden_size, 2 * spec.ffn_size, bias=False)
            + linear(spec.ffn_size, spec.hidden_size, bias=False)
        ),
        activations=lambda spec: 4 * spec.ffn_size,
    ),
    "moe": Kind(
        path="encoder.experts.layer:ExpertFFN",
        weights=_experts,
        activations=lambda spec: (
            spec.experts.top_k
            * (2 * spec.hidden_size + (4 if spec.experts.kind == "geglu" else 2) * spec.experts.width(spec.ffn_size))
        ),
    ),
}
NORMS: Mapping[str, Kind] = {
    "post": Kind(path="encoder.block:PostNormBlock", weights=lambda spec: layer_norm(spec.hidden_size) * 2),
    "pre": Kind(path="encoder.block:PreNormBlock", weights=lambda spec: layer_norm(spec.hidden_size) * 2),
}


def encoder_weights(spec: EncoderSpec) -> dict[str, Weights]:
    """Counts the weights of an encoder by part, as `spectra inspect` names them."""
    hidden, plain = spec.hidden_size, ATTENTIONS["plain"].weights(spec)
    rows = spec.vocab_size + spec.type_vocab_size + (spec.max_positions if spec.position == "absolute" else 0)
    final_norm = layer_norm(hidden) if spec.norm == "pre" else Weights()
    return {
        "embeddings": numbers(rows * hidden) + layer_norm(hidden),
        "attention": plain * spec.layers,
        "spectral path": (ATTENTIONS[spec.attention].weights(spec) - plain) * spec.layers,
        "ffn": sum((FFNS[spec.ffn_of(layer)].weights(spec) for layer in range(spec.layers)), Weights()),
        "norms": NORMS[spec.norm].weights(spec) * spec.layers + final_norm,
        "depth mixing": _depth_mixing(spec),
    }


def _depth_mixing(spec: EncoderSpec) -> Weights:
    depths = len(mixed_depths(spec.layers)) if spec.depth_mix or spec.layer_routing else 0
    return numbers(depths * (1 + spec.hidden_size if spec.layer_routing else 1))


def layer_activations(spec: EncoderSpec) -> int:
    """Counts the numbers per token that one layer keeps for the backward pass."""
    return ATTENTIONS[spec.attention].activations(spec) + FFNS[spec.ffn].activations(spec)


def mixed_depths(layers: int) -> tuple[int, ...]:
    """Returns how far below the top layer the states lie that depth mixing takes in: 1, 2, 4, …"""
    return tuple(2**power for power in range(layers.bit_length()))
