"""The model: one encoder, the heads on it, and a masked-LM head beside them."""

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
from spectra_nsa.encoder.ffn import ACTIVATION_FUNCTIONS
from spectra_nsa.encoder.gates import SelfInitialized
from spectra_nsa.encoder.signals import Signals
from spectra_nsa.heads.outputs import EncoderWithHeads
from spectra_nsa.models.config import SpectraConfig


@dataclass
class SpectraOutput(ModelOutput):
    """What one forward pass gives; outputs that were not asked for are ``None``.

    Attributes:
        embedding: (B, D) fp32, the default vector; unit length if the config says `normalize`.
        semantic: (B, D) fp32, unit length; each prefix in `semantic_dims`, normalised, is an embedding.
        entity: (B, D / 2) fp32, unit length; prefixes `entity_dims`.
        ranking: (B, D) fp32, unit length.
        anchor64: (B, 64) fp32, cosines.
        fast: (B, 32) uint8: 256 bits, most significant first; the first 8 and 16 bytes are codes of 64 and 128 bits.
        fast_logits: (B, 256) fp32, whose signs are the bits, for asymmetric scoring.
        anomaly: (B,) fp32, larger = stranger.
        anomaly_p: (B,) fp32, the share of in-domain texts at least as strange.
        is_ood: (B,) bool, anomaly_p at or below the config's `anomaly_level`.
        last_hidden_state: (B, T, H).
        hidden_states: all depths, where asked for.
        signals: what each layer reports, lowest first, such as the entropy of its attention; with the hidden states.
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
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    signals: tuple[Signals, ...] | None = None


class SpectraPreTrainedModel(PreTrainedModel):
    """Initialisation and transformers' switches, common to both models."""

    config_class = SpectraConfig
    config: SpectraConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["PostNormBlock", "PreNormBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # from_pretrained builds on the meta device and fills what the file lacks through this method only.
        super()._init_weights(module)
        if isinstance(module, SelfInitialized):
            for name, value in module.initial_values().items():
                initialization.copy_(getattr(module, name), value)
        if isinstance(module, MaskedLMHead):
            initialization.zeros_(module.bias)


class SpectraModel(SpectraPreTrainedModel, EncoderWithHeads):
    """Encoder and heads: token ids in, named outputs out (docs/model.md).

    Args:
        config: the model's shape.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # of a masked LM: the encoder is what is read

    def __init__(self, config: SpectraConfig) -> None:
        super().__init__(config)
        self.build(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.embeddings.tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        assert isinstance(value, nn.Embedding)
        self.encoder.embeddings.tokens = value

    def set_dropout(self, share: float) -> None:
        """Sets hidden and attention dropout, in the config and in the built parts."""
        self.config.hidden_dropout_prob = self.config.attention_probs_dropout_prob = share
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share
            elif isinstance(module, PlainAttention):
                module.dropout = share

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
        """One pass; only the heads that `outputs` names are computed.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), non-zero at real tokens; ``None`` for all.
            token_type_ids: (B, T) segment ids; ``None`` for all 0.
            position_ids: (B, T); ``None`` counts from each text's first real token.
            prompt_length: how many leading tokens are the prompt's; read when the config says
                `pooling_skips_prompt`.
            outputs: names from `OUTPUTS`; empty for hidden states only.
            detached: those of them whose gradient ends at their head and does not reach the encoder.
            output_hidden_states: whether to return every depth.
            return_dict: False for a tuple.
            inputs_embeds: (B, T, H), the rows of `input_ids` in the token embedding; ``None`` looks them up.

        Raises:
            UsageError: an output that does not exist.
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
    """BERT's masked-LM head: dense, activation, norm, then the token embedding's transpose and a bias."""

    def __init__(self, config: SpectraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.decoder(self.norm(self.activation(self.dense(x_BTD)))) + self.bias


class SpectraForMaskedLM(SpectraPreTrainedModel):
    """The same encoder under a masked-LM head: for pretraining and for learned-sparse (SPLADE) encoders.

    Its folder and `SpectraModel`'s share the encoder's weights by name: each class opens the other's, and what the
    file lacks is initialised (transformers lists it).
    """

    _tied_weights_keys = {"lm_head.decoder.weight": "model.encoder.embeddings.tokens.weight"}

    def __init__(self, config: SpectraConfig) -> None:
        super().__init__(config)
        self.model = SpectraModel(config)
        self.lm_head = MaskedLMHead(config)
        self.post_init()

    @property
    def spectra(self) -> SpectraModel:
        """The encoder with its heads, under the name by which trainers ask for it."""
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
        """Logits (B, T, V); with `labels` (B, T), −100 where ignored, also the mean cross-entropy."""
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
    """Makes `AutoConfig`, `AutoModel` and `AutoModelForMaskedLM` know our folders; calling it again is harmless."""
    AutoConfig.register(SpectraConfig.model_type, SpectraConfig, exist_ok=True)
    AutoModel.register(SpectraConfig, SpectraModel, exist_ok=True)
    AutoModelForMaskedLM.register(SpectraConfig, SpectraForMaskedLM, exist_ok=True)
