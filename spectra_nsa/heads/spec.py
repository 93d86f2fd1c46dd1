"""The shape of a model: encoder and heads. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from spectra_nsa.core.errors import UsageError, unknown_name
from spectra_nsa.encoder.experts.spec import ExpertSpec
from spectra_nsa.encoder.spec import EncoderSpec
from spectra_nsa.heads.kinds import POOLINGS

_TYPES: dict[str, Any] = {
    "int": int, "float": int | float, "str": str, "bool": bool, "int | None": int | None,
    "list[int] | None": list | tuple | None, "list[str] | None": list | tuple | None,
    "dict[str, Any] | None": dict | None,
}  # fmt: skip
_MOST, _MOST_LAYERS = 2**31 - 1, 10_000
_AT_LEAST_ONE = (
    "vocab_size", "hidden_size", "num_attention_heads", "max_position_embeddings", "semantic_dims", "adapter_size",
)  # fmt: skip


def _is_within(value: Any, least: int, most: int) -> bool:
    """Returns whether a number is in a range; NaN is not. Whatever is no number has no range."""
    return not isinstance(value, int | float) or least <= value <= most


@dataclass(kw_only=True)
class ModelSpec:
    """The shape of an encoder with its heads; the defaults are the `mini` preset (MiniLM's shape).

    The fields are those of a saved model's `config.json`; the backbone's carry BERT's names, and `EncoderSpec` says
    what they mean.

    Attributes:
        norm, position, ffn, attention, mixer: the kind of each part.
        experts: of ``ffn="moe"``, the fields of `ExpertSpec`; ``None`` for its defaults.
        spectral_dim, spectral_modes, entropy_every, depth_mix, layer_routing: see `EncoderSpec`.
        pooling: ``"mean"``, ``"cls"``, ``"max"``, ``"mean_max"``, ``"attention"`` or ``"entropy"``.
        entity: whether `embedding`, and with it the input of the binary codes, includes the entity vector.
        anomaly_method: how the anomaly head was fitted; ``"none"`` before a fit.
        anomaly_prototypes: K.
        anomaly_calibration: number of held-out scores that a p-value is computed from.
        anomaly_level: the false-alarm rate at which `is_ood` is true.
        codes_fitted: whether the binary codes were fitted to a corpus.
        pooling_kinds: further poolings that each text mixes in, as wide as `pooling`; ``None`` for none.
        adapters: K, small networks on the pooled vector that each text mixes; 0 for none.
        adapter_size: their inner width.
        pooling_skips_prompt: whether pooling skips the tokens of a prompt, as some checkpoints ask for.
        normalize: whether `embedding` has unit length.
        semantic_dims: the Matryoshka sizes, largest first; the first is the width D of `embedding`. ``None`` for the
            pooled width and two prefixes of it.
        semantic_projection: whether a linear map stands between pooling and `semantic`. Without one, D is the
            pooled width.
        semantic_bias: whether that map has a bias.
        max_length: the longest text in tokens that the model was made for; ``None`` for the position limit.

    Raises:
        UsageError: an unknown kind, or numbers that do not go together.
    """

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    norm: str = "post"
    position: str = "absolute"
    ffn: str = "gelu"
    experts: dict[str, Any] | None = None
    attention: str = "plain"
    mixer: str = "spectral"
    spectral_dim: int = 64
    spectral_modes: int = 32
    entropy_every: int = 1
    depth_mix: bool = False
    layer_routing: bool = False
    entity: bool = False
    anomaly_method: str = "none"
    anomaly_prototypes: int = 16
    anomaly_calibration: int = 0
    anomaly_level: float = 0.05
    codes_fitted: bool = False
    rope_base: float = 10_000.0
    pooling: str = "mean"
    pooling_kinds: list[str] | None = None
    adapters: int = 0
    adapter_size: int = 64
    pooling_skips_prompt: bool = False
    normalize: bool = True
    semantic_dims: list[int] | None = None
    semantic_projection: bool = False
    semantic_bias: bool = True
    max_length: int | None = None

    def __post_init__(self) -> None:
        self._check_types()
        if self.pooling not in POOLINGS:
            raise unknown_name("pooling", self.pooling, POOLINGS)
        self._check_pooling_kinds()
        sizes = default_dims(self.pooled_size) if self.semantic_dims is None else self.semantic_dims
        self.semantic_dims = sorted((int(size) for size in sizes), reverse=True)
        if not self.semantic_projection and self.semantic_dims[0] != self.pooled_size:
            raise UsageError(
                f"semantic_dims starts at {self.semantic_dims[0]}, but pooling gives {self.pooled_size} numbers and "
                f"there is no projection: start at {self.pooled_size}, as in semantic_dims=[{self.pooled_size}]."
            )
        if self.ffn == "moe":
            self.experts = ExpertSpec.from_config(self.experts).to_config()
        self.encoder_spec()  # refuses what cannot be built
        if self.max_length is not None:
            check_length(self.max_length, self)

    def _check_types(self) -> None:
        """Checks that every field has a value of its type that a model can have: `config.json` may hold anything."""
        for field in fields(ModelSpec):
            value = getattr(self, field.name)
            numbers = [value]
            if isinstance(value, list | tuple) and field.type != "list[str] | None":
                numbers = [size if type(size) is int else -1 for size in value]
            most = _MOST_LAYERS if field.name == "num_hidden_layers" else _MOST
            least = 1 if field.name in _AT_LEAST_ONE else 0
            valid = isinstance(value, _TYPES[str(field.type)]) and isinstance(value, bool) == (field.type == "bool")
            if not valid or not numbers or not all(_is_within(number, least, most) for number in numbers):
                raise UsageError(f"{field.name} is {value!r:.80}, which no model can have.")

    def _check_pooling_kinds(self) -> None:
        """Checks the further poolings: known, each once, and as wide as the model's."""
        kinds = [] if self.pooling_kinds is None else list(self.pooling_kinds)
        for kind in kinds:
            if kind not in POOLINGS:
                raise unknown_name("pooling", str(kind), POOLINGS)
        if len({self.pooling, *kinds}) != len(kinds) + 1:
            raise UsageError(f"pooling_kinds is {kinds}: name each pooling once, and not {self.pooling} itself.")
        if kinds and any(POOLINGS[kind].width != 1 for kind in (self.pooling, *kinds)):
            raise UsageError("pooling_kinds mixes vectors of one width, so mean_max cannot be among them.")
        self.pooling_kinds = kinds or None

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Reads the content of a saved model's `config.json`; keys that describe no shape are ignored."""
        names = {field.name for field in fields(ModelSpec)}
        return ModelSpec(**{name: value for name, value in values.items() if name in names})

    @property
    def pooled_size(self) -> int:
        """Width of the pooled vector."""
        return self.hidden_size * POOLINGS[self.pooling].width

    @property
    def projection_dim(self) -> int:
        """D, under the name that sentence-transformers reads."""
        assert self.semantic_dims is not None
        return self.semantic_dims[0]

    @property
    def entity_dims(self) -> list[int]:
        """The entity vector's Matryoshka sizes: half of the semantic ones."""
        assert self.semantic_dims is not None
        return [size // 2 for size in self.semantic_dims]

    def encoder_spec(self) -> EncoderSpec:
        """Returns the encoder's shape."""
        return EncoderSpec(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            ffn_size=self.intermediate_size,
            max_positions=self.max_position_embeddings,
            type_vocab_size=self.type_vocab_size,
            norm=self.norm,
            position=self.position,
            ffn=self.ffn,
            experts=ExpertSpec.from_config(self.experts),
            attention=self.attention,
            mixer=self.mixer,
            spectral_dim=self.spectral_dim,
            spectral_modes=self.spectral_modes,
            entropy_every=self.entropy_every,
            entropy_at_top=any(POOLINGS[kind].needs_entropy for kind in (self.pooling, *(self.pooling_kinds or []))),
            depth_mix=self.depth_mix,
            layer_routing=self.layer_routing,
            activation=self.hidden_act,
            norm_eps=self.layer_norm_eps,
            hidden_dropout=self.hidden_dropout_prob,
            attention_dropout=self.attention_probs_dropout_prob,
            rope_theta=self.rope_base,
            pad_token_id=self.pad_token_id,
        )


def check_length(tokens: int, spec: ModelSpec) -> None:
    """Refuses texts longer than the model has positions for.

    Raises:
        UsageError: they are.
    """
    if tokens > spec.max_position_embeddings:
        raise UsageError(
            f"max_length {tokens} is more than the {spec.max_position_embeddings} positions that the model has."
        )


def default_dims(size: int) -> list[int]:
    """Returns the Matryoshka sizes of a width: itself, two thirds and a third (768 ⊃ 512 ⊃ 256, 384 ⊃ 256 ⊃ 128)."""
    return [size, size * 2 // 3, size // 3] if size >= 48 and size % 3 == 0 else [size, size // 2, size // 4]
