"""The shape of a layer's experts. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from spectra_nsa.core.errors import UsageError, unknown_name

# What decides for whom: each token by its state, or a text by one choice for all of its tokens.
ROUTERS = ("token", "text", "text_layer", "smear", "hash", "frozen", "text_hash")
TEXT_ROUTERS = ("text", "text_layer", "smear", "text_hash")  # one choice for each text
HASH_ROUTERS = ("hash", "text_hash")  # no gate at all
FIXED_ROUTERS = (*HASH_ROUTERS, "frozen")  # nothing about them is learned: controls for an experiment
EXPERT_KINDS = ("gelu", "geglu")


@dataclass(frozen=True, kw_only=True)
class ExpertSpec:
    """Which layers have experts, how many, and how they are chosen (docs/model.md, section 6).

    Attributes:
        count: E, the experts of a layer.
        top_k: k, the experts of each token. With 1, an expert's output counts in full; with more, by its share of the
            gate among the chosen.
        sliced: whether an expert is one of k equal slices of the feed-forward network instead of all of it. The experts
            then stand in k groups, one for each slice, and a token takes one of each, so that the active width is that
            of the network.
        kind: ``"gelu"`` or ``"geglu"``, as `EncoderSpec.ffn`; layers without experts have this kind too.
        every: the top layer and every Nth layer below it have experts.
        first: the lowest layer that may have experts, counted from 0.
        router: ``"token"`` (each token by its state), ``"text"`` (each text by the mean of its input embeddings),
            ``"text_layer"`` (each text by the mean of the layer's input), ``"smear"`` (as text_layer, but the text gets
            the mean of the experts' weights, by the gate: Muqeeth et al. 2023), or as controls ``"hash"`` (by token
            id), ``"text_hash"`` (by a hash of the text's token ids) and ``"frozen"`` (a random gate that is never
            trained).
        shared: whether a further network of an expert's width is always added; it contributes zero at the start.
        dropout: on the inner states of experts, in training.
        noise: standard deviation of what is added to the gate's logits in training.
        capacity: in training, the most tokens of an expert as a multiple of an equal share; those with the lowest gate
            are dropped. ``None`` drops none.
        balance_bias: whether a bias, moved after each step, balances the experts instead of a loss (Wang et al. 2024).
            It only selects: it is no part of the gate.

    Raises:
        UsageError: an unknown router or kind, or numbers that do not go together.
    """

    count: int = 8
    top_k: int = 1
    sliced: bool = False
    kind: str = "gelu"
    every: int = 1
    first: int = 0
    router: str = "token"
    shared: bool = False
    dropout: float = 0.0
    noise: float = 0.0
    capacity: float | None = None
    balance_bias: bool = False

    def __post_init__(self) -> None:
        for name, value, valid in (("router", self.router, ROUTERS), ("expert kind", self.kind, EXPERT_KINDS)):
            if value not in valid:
                raise unknown_name(name, value, valid)
        if self.count < 2:
            raise UsageError(
                f"{self.count} expert is a plain feed-forward network: set model.experts.count to 2 or more, or leave "
                "out model.ffn=moe."
            )
        if not 1 <= self.top_k <= self.count:
            raise UsageError(f"a token cannot use {self.top_k} of {self.count} experts: set model.experts.top_k lower.")
        if self.sliced and (self.top_k < 2 or self.count % self.top_k or self.count < 2 * self.top_k):
            raise UsageError(
                f"experts that are slices stand in top_k groups of at least two: {self.count} experts with "
                f"top_k={self.top_k} do not. Set model.experts.top_k=2 and an even count from 4."
            )
        if min(self.every, 1) < 1 or self.first < 0:
            raise UsageError("model.experts.every must be at least 1, and model.experts.first at least 0.")
        if not 0 <= self.dropout < 1 or self.noise < 0 or (self.capacity is not None and self.capacity <= 0):
            raise UsageError(
                "of experts, dropout is from 0 to below 1, noise is not negative, and capacity is above 0."
            )
        if self.router == "smear" and (self.top_k > 1 or self.capacity is not None or self.balance_bias):
            raise UsageError("the router 'smear' uses all experts: top_k, capacity and balance_bias do not go with it.")
        if self.router in FIXED_ROUTERS and (self.balance_bias or self.noise):
            raise UsageError(f"the router {self.router!r} is fixed: balance_bias and noise do not go with it.")

    @classmethod
    def from_config(cls, values: Mapping[str, Any] | ExpertSpec | None) -> ExpertSpec:
        """Reads the value of `experts` in a `config.json`; ``None`` gives the defaults.

        Raises:
            UsageError: a key that does not exist, or a value of the wrong type.
        """
        if isinstance(values, ExpertSpec):
            return values
        known = {field.name: field for field in fields(cls)}
        for name, value in (values or {}).items():
            if name not in known:
                raise unknown_name("key of experts", name, list(known))
            if not _fits(value, str(known[name].type)):
                raise UsageError(f"experts.{name} is {value!r:.80}, which no model can have.")
        return cls(**(values or {}))

    def to_config(self) -> dict[str, Any]:
        """Returns the value of `experts` in a `config.json`."""
        return asdict(self)

    @property
    def groups(self) -> int:
        """The groups of experts of each of which a token uses one, or the only one."""
        return self.top_k if self.sliced else 1

    @property
    def by_text(self) -> bool:
        """Whether one choice holds for all tokens of a text."""
        return self.router in TEXT_ROUTERS

    @property
    def learned(self) -> bool:
        """Whether the gate is trained."""
        return self.router not in FIXED_ROUTERS

    @property
    def balanced(self) -> bool:
        """Whether losses on the load make sense: a gate that is trained, and chooses."""
        return self.learned and self.router != "smear"

    def width(self, ffn_size: int) -> int:
        """Returns the inner width of one expert."""
        return ffn_size // self.groups

    def in_layer(self, layer: int, layers: int) -> bool:
        """Returns whether a layer, counted from 0, has experts."""
        return layer >= self.first and (layers - 1 - layer) % self.every == 0


def check_asked(ffn: str | None, experts: object) -> None:
    """Checks that settings of experts come with experts.

    Args:
        ffn: the kind of feed-forward network that the model has, or is asked to have.
        experts: the settings; ``None`` for none.

    Raises:
        UsageError: there are settings, and no experts.
    """
    if experts and ffn != "moe":
        raise UsageError("model.experts has keys, but the model has no experts: set model.ffn=moe too.")


def _fits(value: Any, kind: str) -> bool:
    """Returns whether a value from a file is of a field's type."""
    if kind == "float | None":
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if kind == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value).__name__ == kind
