"""The keys `model.experts` of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spectra_nsa.config.section import Section


class ExpertsSection(Section):
    """The experts of a model with `model.ffn: moe`; null takes the default, or what a saved model has."""

    count: int | None = Field(None, gt=0, description="experts in a layer; null takes 8")
    top_k: int | None = Field(None, gt=0, description="experts of each token; null takes 1")
    sliced: bool | None = Field(
        None,
        description="experts are slices, 1/top_k of the network each, and a token takes one of each group of copies: "
        "the active width stays that of the network; null takes false",
    )
    every: int | None = Field(
        None, gt=0, description="the top layer and every N-th layer below it have experts; null takes 1"
    )
    first: int | None = Field(None, ge=0, description="the lowest layer that may have experts; null takes 0")
    router: Literal["token", "text", "text_layer", "smear", "hash", "frozen", "text_hash"] | None = Field(
        None,
        description="what chooses: token (each token by its state), text (each text by its input embeddings), "
        "text_layer (each text by the layer's input), "
        "smear (each text mixes the experts' weights), and three controls that "
        "are not trained: hash (by token id), text_hash (by the text's token ids) and frozen (a random gate); null "
        "takes token",
    )
    kind: Literal["gelu", "geglu"] | None = Field(
        None, description="the kind of network that an expert is; null takes the start's or the preset's"
    )
    shared: bool | None = Field(
        None, description="a further expert that all tokens pass, zero at the start; null takes false"
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout on the inner states of experts, in training; null takes 0"
    )
    noise: float | None = Field(
        None, ge=0, description="standard deviation of noise on the gate's logits, in training; null takes 0"
    )
    capacity: float | None = Field(
        None,
        gt=0,
        description="in training, the most tokens of an expert in a forward pass, as a multiple of an equal share; "
        "null drops none",
    )
    balance_bias: bool | None = Field(
        None,
        description="balance the experts by a bias that is moved after each step, instead of the term router_balance; "
        "null takes false",
    )
