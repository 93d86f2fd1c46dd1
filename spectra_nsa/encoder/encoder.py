"""The encoder: embeddings and blocks, built from the parts that a spec names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spectra_nsa.encoder.block import Block
from spectra_nsa.encoder.context import make_context, text_means
from spectra_nsa.encoder.depth import DepthMixing
from spectra_nsa.encoder.embeddings import Embeddings
from spectra_nsa.encoder.kinds import ATTENTIONS, FFNS, NORMS
from spectra_nsa.encoder.part import EncoderPart
from spectra_nsa.encoder.signals import Signals
from spectra_nsa.encoder.spec import EncoderSpec


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """An encoder's output.

    Attributes:
        states: `layers` + 1 tensors (B, T, D): after the embeddings and after each block; the last has depth mixing
            and the final norm.
        signals: what each layer reports, lowest first.
        depth_gate_BJ: the gate of each text over the J depths that are mixed; ``None`` without layer routing.
    """

    states: list[Tensor]
    signals: list[Signals]
    depth_gate_BJ: Tensor | None = None


def build_block(spec: EncoderSpec, layer: int) -> Block:
    """Builds a layer, counted from 0, with the parts that the spec names."""
    norms = (
        nn.LayerNorm(spec.hidden_size, eps=spec.norm_eps),
        nn.LayerNorm(spec.hidden_size, eps=spec.norm_eps),
    )
    attention = ATTENTIONS[spec.attention].load()(spec, spec.measures_entropy(layer))
    block: Block = NORMS[spec.norm].load()(attention, build_ffn(spec, layer), norms, spec.hidden_dropout)
    return block


def build_ffn(spec: EncoderSpec, layer: int) -> nn.Module:
    """Builds the feed-forward network of a layer, counted from 0."""
    kind = spec.ffn_of(layer)
    ffn: nn.Module = FFNS[kind].load()(spec, layer) if kind == "moe" else FFNS[kind].load()(spec)
    return ffn


class Encoder(EncoderPart):
    """Maps token ids to hidden states (docs/model.md, section 1).

    Args:
        spec: the encoder's shape.
    """

    new_parts = ("depth",)

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embeddings = Embeddings(spec)
        self.layers = nn.ModuleList(build_block(spec, layer) for layer in range(spec.layers))
        self.final_norm = nn.LayerNorm(spec.hidden_size, eps=spec.norm_eps) if spec.norm == "pre" else nn.Identity()
        routed = spec.hidden_size if spec.layer_routing else None
        self.depth = DepthMixing(spec.layers, routed) if spec.depth_mix or spec.layer_routing else None
        # transformers sets these two when gradient checkpointing is turned on.
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Callable[..., Any] = partial(checkpoint, use_reentrant=False)
        self.trainings = 0  # how often training began: what was made of the weights is then no longer valid

    def train(self, mode: bool = True) -> Encoder:
        self.trainings += mode
        return super().train(mode)

    def forward(
        self,
        ids_BT: Tensor,
        mask_BT: Tensor,
        segments_BT: Tensor | None = None,
        positions_BT: Tensor | None = None,
        tokens_BTD: Tensor | None = None,
    ) -> Encoded:
        """Returns the hidden states of every depth and the signals of every layer.

        Args:
            ids_BT: token ids.
            mask_BT: non-zero at real tokens.
            segments_BT: segment ids; ``None`` for all 0.
            positions_BT: positions; ``None`` counts them from each text's first real token.
            tokens_BTD: the ids' rows of the token embedding; ``None`` looks them up.
        """
        spec = self.spec
        context = make_context(
            mask_BT,
            positions_BT,
            rope_head_size=spec.hidden_size // spec.heads if spec.position == "rope" else None,
            rope_theta=spec.rope_theta,
            modes=spec.spectral_modes if spec.attention == "spectral" and spec.mixer == "spectral" else None,
        )
        x_BTD = self.embeddings(context, ids_BT, segments_BT, tokens_BTD)
        if spec.ffn == "moe":
            texts_BD = text_means(x_BTD, context) if spec.experts.router == "text" else None
            context = replace(context, ids_BT=ids_BT, texts_BD=texts_BD)
        states = [x_BTD]
        signals = []
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x_BTD, reported = self._gradient_checkpointing_func(layer, x_BTD, context)
            else:
                x_BTD, reported = layer(x_BTD, context)
            states.append(x_BTD)
            signals.append(reported)
        depth_gate_BJ = None
        if self.depth is not None:
            x_BTD, depth_gate_BJ = self.depth(states, context)
        states[-1] = self.final_norm(x_BTD)
        return Encoded(states=states, signals=signals, depth_gate_BJ=depth_gate_BJ)
