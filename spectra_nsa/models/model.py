"""The Hugging Face models: encoder and heads, and the encoder with a masked-LM head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedModel, initialization
from transformers.modeling_outputs import MaskedLMOutput
from transformers.utils import ModelOutput

from spectra_nsa.encoder.attention import PlainAttention
from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.encoder.ffn import ACTIVATION_FUNCTIONS
from spectra_nsa.encoder.gates import SelfInitialized
from spectra_nsa.encoder.signals import Signals
from spectra_nsa.heads.outputs import EncoderWithHeads
from spectra_nsa.models.config import SpectraConfig


@dataclass
class SpectraOutput(ModelOutput):
    """Outputs of one forward pass; ``None`` unless requested.

    Attributes:
        embedding: (B, D) fp32, the default vector; unit length if the config's `normalize` is true.
        semantic: (B, D) fp32, unit length; each prefix in `semantic_dims` is an embedding once normalized.
        entity: (B, D / 2) fp32, unit length; its prefixes are `entity_dims`.
        ranking: (B, D) fp32, unit length.
        anchor64: (B, 64) fp32, cosines to the anchors.
        fast: (B, 32) uint8, 256 bits, most significant first; the first 8 and 16 bytes are 64-bit and 128-bit codes.
        fast_logits: (B, 256) fp32, whose signs are the bits, for asymmetric scoring.
        anomaly: (B,) fp32 score; larger is more anomalous.
        anomaly_p: (B,) fp32, the fraction of in-domain texts with at least this score.
        is_ood: (B,) bool, true if `anomaly_p` is at most the config's `anomaly_level`.
        router_load: (B, L, E) fp32, how often a text's tokens chose each of E experts in each of L layers with experts.
        router_probs: (B, L, E) fp32, the sum of the gate over them.
        router_square: (B, L) fp32, the sum of the gate's squared log-partition.
        router_entropy: (B, L) fp32, the sum of its entropy, 1 if it is uniform.
        router_margin: (B, L) fp32, the smallest distance of a chosen expert's logit to the best of the others.
        depth_gate: (B, J) fp32, the text's gate over the J depths that are mixed into the top; 1 for each if undecided.
        pooling_gate: (B, J) fp32, its gate over J further poolings.
        adapter_gate: (B, K) fp32, its gate over K adapters.
        last_hidden_state: (B, T, H).
        hidden_states: (B, T, H) for each depth, if `output_hidden_states` is true.
        signals: the signals of each layer, lowest first, such as attention entropy; returned with `hidden_states`.
    """

    embedding: Tensor | None = None
    semantic: Tensor | None = None
    entity: Tensor | None = None
    ranking: Tensor | None = None
    anchor64: Tensor | None = None
    fast: Tensor | None = None
    fast_logits: Tensor | None = None
    anomaly: Tensor | None = None
    anomaly_p: Tensor | None = None
    is_ood: Tensor | None = None
    router_load: Tensor | None = None
    router_probs: Tensor | None = None
    router_square: Tensor | None = None
    router_entropy: Tensor | None = None
    router_margin: Tensor | None = None
    depth_gate: Tensor | None = None
    pooling_gate: Tensor | None = None
    adapter_gate: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    signals: tuple[Signals, ...] | None = None


class SpectraPreTrainedModel(PreTrainedModel):
    """Initialization and transformers settings shared by both models."""

    config_class = SpectraConfig
    config: SpectraConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["PostNormBlock", "PreNormBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # from_pretrained builds on the meta device; only this method initializes weights that the file lacks.
        super()._init_weights(module)
        if isinstance(module, SelfInitialized):
            for name, value in module.initial_values().items():
                initialization.copy_(getattr(module, name), value)
        if isinstance(module, MaskedLMHead):
            initialization.zeros_(module.bias)
        if isinstance(module, ExpertFFN):
            for weight in module.experts():
                if weight.ndim == 3:
                    initialization.normal_(weight, std=self.config.initializer_range)
                else:
                    initialization.zeros_(weight)


class SpectraModel(SpectraPreTrainedModel, EncoderWithHeads):
    """Encoder and heads: token ids in, named outputs out (docs/model.md).

    Args:
        config: the model's configuration.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # in a masked LM's folder

    def __init__(self, config: SpectraConfig) -> None:
        super().__init__(config)
        self.build(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embeddings.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        assert isinstance(value, nn.Embedding)
        self.encoder.embeddings.tokens = value

    def set_dropout(self, probability: float) -> None:
        """Sets hidden and attention dropout in the config and in all modules."""
        self.config.hidden_dropout_prob = self.config.attention_probs_dropout_prob = probability
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability
            elif isinstance(module, PlainAttention):
                module.dropout = probability

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        prompt_length: int | Tensor | None = None,
        outputs: Sequence[str] = ("embedding",),
        detached: Sequence[str] = (),
        output_hidden_states: bool = False,
        return_dict: bool = True,
        inputs_embeds: Tensor | None = None,
    ) -> SpectraOutput | tuple[Any, ...]:
        """Computes the requested outputs; heads that they do not need are skipped.

        Args:
            input_ids: (B, T) token ids.
            attention_mask: (B, T), nonzero at real tokens; ``None`` if there is no padding.
            token_type_ids: (B, T) segment ids; ``None`` for all zeros.
            position_ids: (B, T); ``None`` counts from each text's first real token.
            prompt_length: number of leading prompt tokens, used if the config's `pooling_skips_prompt` is true.
            outputs: names from `outputs_of` the model; empty for hidden states only.
            detached: the outputs whose gradient stops at their head and does not reach the encoder.
            output_hidden_states: whether to return the hidden states and signals of every depth.
            return_dict: whether to return a `SpectraOutput` instead of a tuple.
            inputs_embeds: (B, T, H) token vectors of `input_ids`; ``None`` looks them up.

        Raises:
            UsageError: an output does not exist.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        encoded = self.encoder(input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        result = SpectraOutput(last_hidden_state=encoded.states[-1])
        if output_hidden_states:
            result.hidden_states = tuple(encoded.states)
            result.signals = tuple(encoded.signals)
        if outputs:
            values = self.apply_heads(
                encoded, input_ids, attention_mask, outputs, prompt_length=prompt_length, detached=detached
            )
            for name, value in values.items():
                result[name] = value
        return result if return_dict else result.to_tuple()


class MaskedLMHead(nn.Module):
    """BERT's masked-LM head: dense layer, activation, norm, then the transposed token embedding and a bias."""

    def __init__(self, config: SpectraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def states(self, x_BTD: Tensor) -> Tensor:
        """Computes what the decoder reads: (B, T, D)."""
        return self.norm(self.activation(self.dense(x_BTD)))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.decoder(self.states(x_BTD)) + self.bias


class SpectraForMaskedLM(SpectraPreTrainedModel):
    """The encoder with a masked-LM head, for pretraining and for learned sparse (SPLADE) encoders.

    `SpectraModel` and this class can open each other's folders. Weights that a folder lacks are initialized, and
    transformers lists them.
    """

    _tied_weights_keys = {"lm_head.decoder.weight": "model.encoder.embeddings.tokens.weight"}

    def __init__(self, config: SpectraConfig) -> None:
        super().__init__(config)
        self.model = SpectraModel(config)
        self.lm_head = MaskedLMHead(config)
        self.post_init()

    @property
    def spectra(self) -> SpectraModel:
        """The encoder with its heads; trainers use this name for either model."""
        return self.model

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head.decoder

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head.decoder = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Computes logits (B, T, V) and, given `labels` (B, T), the mean cross-entropy over labels other than −100."""
        out = self.model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            outputs=(),
            output_hidden_states=output_hidden_states,
        )
        logits_BTV = self.lm_head(out.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
        result = MaskedLMOutput(loss=loss, logits=logits_BTV, hidden_states=out.hidden_states)
        return result if return_dict else result.to_tuple()


def register() -> None:
    """Registers our classes with transformers' Auto classes, so that they open our folders; safe to repeat."""
    AutoConfig.register(SpectraConfig.model_type, SpectraConfig, exist_ok=True)
    AutoModel.register(SpectraConfig, SpectraModel, exist_ok=True)
    AutoModelForMaskedLM.register(SpectraConfig, SpectraForMaskedLM, exist_ok=True)
