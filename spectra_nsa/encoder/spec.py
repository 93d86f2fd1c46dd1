"""The shape of an encoder. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from spectra_nsa.core.errors import UsageError, unknown_name
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.encoder.kinds import ATTENTIONS, FFNS, MIXERS, NORMS

POSITIONS = ("absolute", "rope")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
_DEFAULT_EXPERTS = ExpertSpec()


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """The shape of an encoder. Post-norm + absolute + gelu + plain is BERT (Devlin et al. 2019).

    Attributes:
        vocab_size: rows of the token embedding.
        hidden_size: D.
        layers: number of blocks.
        heads: H; divides D.
        ffn_size: inner width of the feed-forward network.
        max_positions: the longest text in tokens; a learned row each with ``position="absolute"``.
        type_vocab_size: rows of the segment embedding; 0 for none.
        norm: ``"post"`` (after each residual sum, as in BERT) or ``"pre"`` (before each part, and once at the end).
        position: ``"absolute"`` (learned, added to the tokens) or ``"rope"`` (rotated queries and keys).
        ffn: ``"gelu"`` (two layers), ``"geglu"`` (gated, three matrices) or ``"moe"`` (experts of either kind).
        experts: which layers have how many experts with ``ffn="moe"``.
        attention: ``"plain"``, or ``"spectral"``: with a second, entropy-gated path beside it.
        mixer: that path: ``"spectral"`` (a filter over frequencies) or ``"conv"`` (a depthwise convolution).
        spectral_dim: s, the width of that path.
        spectral_modes: M, how many cosines the filter keeps.
        entropy_every: N: the top layer and every Nth layer below it measure the entropy of their attention.
        entropy_at_top: whether the top layer measures it under plain attention too, for entropy pooling.
        depth_mix: whether the states 1, 2, 4, … layers below the top are mixed into the last.
        layer_routing: whether each text mixes them by a gate of its own; mixes them with or without `depth_mix`.
        activation: ``"gelu"`` (exact), ``"gelu_tanh"`` or ``"relu"``.
        norm_eps: epsilon of the layer norms.
        hidden_dropout: after embeddings, attention and feed-forward, in training.
        attention_dropout: on the attention weights, in training.
        rope_theta: base of the rotary frequencies.
        pad_token_id: the embedding row without gradient; ``None`` for none.

    Raises:
        UsageError: an unknown kind, or numbers that do not go together.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    ffn_size: int
    max_positions: int = 512
    type_vocab_size: int = 2
    norm: str = "post"
    position: str = "absolute"
    ffn: str = "gelu"
    experts: ExpertSpec = _DEFAULT_EXPERTS
    attention: str = "plain"
    mixer: str = "spectral"
    spectral_dim: int = 64
    spectral_modes: int = 32
    entropy_every: int = 1
    entropy_at_top: bool = False
    depth_mix: bool = False
    layer_routing: bool = False
    activation: str = "gelu"
    norm_eps: float = 1e-12
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    rope_theta: float = 10_000.0
    pad_token_id: int | None = 0

    def __post_init__(self) -> None:
        for kind, value, valid in (
            ("norm", self.norm, NORMS),
            ("position", self.position, POSITIONS),
            ("ffn", self.ffn, FFNS),
            ("attention", self.attention, ATTENTIONS),
            ("mixer", self.mixer, MIXERS),
            ("activation", self.activation, ACTIVATIONS),
        ):
            if value not in valid:
                raise unknown_name(kind, value, valid)
        if self.hidden_size % self.heads:
            raise UsageError(f"hidden_size {self.hidden_size} is not a multiple of the {self.heads} attention heads.")
        if self.position == "rope" and (self.hidden_size // self.heads) % 2:
            raise UsageError("rope rotates pairs of numbers: hidden_size / heads must be even.")
        if self.ffn == "moe":
            self._check_experts()
        for name in ("spectral_dim", "spectral_modes", "entropy_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at least 1.")

    def _check_experts(self) -> None:
        if self.ffn_size % self.experts.groups:
            raise UsageError(f"a width of {self.ffn_size} cannot be cut into {self.experts.groups} slices.")
        if not self.expert_layers:
            raise UsageError(
                f"no layer has experts: model.experts.first is {self.experts.first}, and the layers are 0 to "
                f"{self.layers - 1}."
            )

    @property
    def expert_layers(self) -> list[int]:
        """The layers with experts, counted from 0."""
        if self.ffn != "moe":
            return []
        return [layer for layer in range(self.layers) if self.experts.in_layer(layer, self.layers)]

    def ffn_of(self, layer: int) -> str:
        """Returns the kind of a layer's feed-forward network."""
        return self.ffn if self.ffn != "moe" or self.experts.in_layer(layer, self.layers) else self.experts.kind

    def measures_entropy(self, layer: int) -> bool:
        """Returns whether a layer, counted from 0, measures the entropy of its attention."""
        above = self.layers - 1 - layer
        if self.attention == "spectral" and above % self.entropy_every == 0:
            return True
        return self.entropy_at_top and above == 0
