"""The feed-forward part of a layer that has experts."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext, text_keys, text_means
from spectra_nsa.encoder.experts.kernels import Weights, averaged, choose_kernel, gathered
from spectra_nsa.encoder.experts.router import Router, routing_of
from spectra_nsa.encoder.ffn import ACTIVATION_FUNCTIONS
from spectra_nsa.encoder.gates import Gate
from spectra_nsa.encoder.kinds import FFNS
from spectra_nsa.encoder.part import EncoderPart
from spectra_nsa.encoder.signals import Signals
from spectra_nsa.encoder.spec import EncoderSpec


class ExpertFFN(EncoderPart):
    """E feed-forward networks and a router (docs/model.md, section 6).

    The weights of all experts are stacked, in the layout of transformers: `up_proj` (E, F, D), for a gated kind
    `gate_up_proj` (E, 2F, D), and `down_proj` (E, D, F).

    Args:
        spec: the encoder's shape.
        layer: the layer's number, from 0.
    """

    new_parts = ("router", "shared", "shared_gate")

    def __init__(self, spec: EncoderSpec, layer: int) -> None:
        super().__init__()
        experts = spec.experts
        E, D, F = experts.count, spec.hidden_size, experts.width(spec.ffn_size)
        self.spec = experts
        self.gated = experts.kind == "geglu"
        self.activation = ACTIVATION_FUNCTIONS[spec.activation]
        self.router = Router(experts, D, layer)
        up = nn.Parameter(torch.empty(E, 2 * F if self.gated else F, D))
        self.register_parameter("gate_up_proj" if self.gated else "up_proj", up)
        self.down_proj = nn.Parameter(torch.empty(E, D, F))
        self.up_proj_bias = None if self.gated else nn.Parameter(torch.empty(E, F))
        self.down_proj_bias = None if self.gated else nn.Parameter(torch.empty(E, D))
        self.shared = _expert_alone(spec) if experts.shared else None
        self.shared_gate = Gate() if experts.shared else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Gives the experts random weights, as BERT's linear layers have."""
        for weight, bias in ((self.up_weight, self.up_proj_bias), (self.down_proj, self.down_proj_bias)):
            nn.init.normal_(weight, std=0.02)
            if bias is not None:
                nn.init.zeros_(bias)

    @property
    def up_weight(self) -> nn.Parameter:
        """The first matrix of each expert."""
        return self.get_parameter("gate_up_proj" if self.gated else "up_proj")

    def matrices(self) -> list[nn.Parameter]:
        return [*super().matrices(), self.up_weight, self.down_proj]

    def experts(self) -> list[nn.Parameter]:
        """Returns the weights of the experts."""
        biases = [bias for bias in (self.up_proj_bias, self.down_proj_bias) if bias is not None]
        return [self.up_weight, self.down_proj, *biases]

    def outputs_of_all(self, x_ND: Tensor) -> Tensor:
        """Returns what each expert computes for the same states: (E, N, D)."""
        return torch.stack([expert(x_ND) for expert in self._weights().experts()])

    def _weights(self) -> Weights:
        return Weights(
            self.up_weight,
            self.up_proj_bias,
            self.down_proj,
            self.down_proj_bias,
            self.activation,
            self.gated,
            self.spec.dropout if self.training else 0.0,
        )

    def forward(self, x_BTD: Tensor, context: BatchContext) -> tuple[Tensor, Signals]:
        """Returns the experts' output, zero at padding, and the routing."""
        weights = self._weights()
        rows_M = _real_rows(context)
        if self.spec.by_text:
            texts_BD = context.texts_BD if self.spec.router == "text" else text_means(x_BTD, context)
            assert texts_BD is not None
            choice = self.router(texts_BD, text_keys(context) if self.spec.router == "text_hash" else None)
        else:
            ids_M = None if context.ids_BT is None else _real(context.ids_BT[..., None], rows_M).squeeze(1)
            choice = self.router(_real(x_BTD, rows_M), ids_M)
        routing = routing_of(choice, context, rows_M, self.spec)
        if self.spec.router == "smear":
            y_BTD = averaged(x_BTD, choice.probs_ME, weights)
        elif self.spec.by_text and self.spec.top_k == 1 and torch.compiler.is_compiling():
            y_BTD = gathered(x_BTD, choice.chosen_MK[:, 0], weights) * choice.weight_MK[:, :, None].to(x_BTD.dtype)
        else:
            chosen_MK, weight_MK = choice.chosen_MK, choice.weight_MK
            if self.spec.by_text:
                chosen_MK, weight_MK = (_of_tokens(value, context, rows_M) for value in (chosen_MK, weight_MK))
            x_MD = _real(x_BTD, rows_M)
            y_MD = choose_kernel(x_MD, weights)(x_MD, chosen_MK, weight_MK, weights)
            y_BTD = _padded(y_MD, x_BTD, rows_M)
        if self.shared is not None and self.shared_gate is not None:
            y_BTD = y_BTD + self.shared_gate(self.shared(x_BTD, context)[0]).to(y_BTD.dtype)
        return y_BTD, Signals(routing=routing)


def _expert_alone(spec: EncoderSpec) -> nn.Module:
    """Builds a network of the shape of one expert."""
    experts = spec.experts
    shape = replace(spec, ffn=experts.kind, ffn_size=experts.width(spec.ffn_size))
    network: nn.Module = FFNS[experts.kind].load()(shape)
    return network


def _real_rows(context: BatchContext) -> Tensor | None:
    """Returns the flat positions of real tokens; ``None`` if all are, or if a graph is traced, which computes all."""
    if context.attend_B11T is None or torch.compiler.is_compiling():
        return None
    return context.mask_BT.flatten().nonzero().squeeze(1)


def _real(x_BTD: Tensor, rows_M: Tensor | None) -> Tensor:
    flat = x_BTD.flatten(0, 1)
    return flat if rows_M is None else flat.index_select(0, rows_M)


def _of_tokens(value_BK: Tensor, context: BatchContext, rows_M: Tensor | None) -> Tensor:
    """Returns the choice of each token's text."""
    return _real(value_BK[:, None].expand(-1, context.mask_BT.shape[1], -1), rows_M)


def _padded(y_MD: Tensor, like_BTD: Tensor, rows_M: Tensor | None) -> Tensor:
    B, T, D = like_BTD.shape
    if rows_M is None:
        return y_MD.view(B, T, D)
    return y_MD.new_zeros(B * T, D).index_copy(0, rows_M, y_MD).view(B, T, D)
