"""Encoder and heads as one plain torch module: token ids in, named outputs out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.encoder.encoder import Encoded, Encoder
from spectra_nsa.encoder.experts.layer import ExpertFFN
from spectra_nsa.encoder.gates import Gate, TextGate
from spectra_nsa.heads.anchors import AnchorHead
from spectra_nsa.heads.anomaly import AnomalyHead
from spectra_nsa.heads.bridge import HashBridge, pack_bits
from spectra_nsa.heads.entity import EntityFusion, EntityHead
from spectra_nsa.heads.expert_pooling import Adapters, PoolingMixture
from spectra_nsa.heads.kinds import GATE_OUTPUTS, ROUTING_OUTPUTS, check_outputs
from spectra_nsa.heads.pooling import build_pooling
from spectra_nsa.heads.ranking import RankingHead
from spectra_nsa.heads.routing import routing_outputs
from spectra_nsa.heads.semantic import SemanticHead
from spectra_nsa.heads.spec import ModelSpec


class EncoderWithHeads(nn.Module):
    """An encoder and the heads on it (docs/model.md).

    `NamedOutputs` and the Hugging Face model inherit from it, so both have the same parameter names.
    """

    spec: ModelSpec

    def build(self, spec: ModelSpec) -> None:
        """Adds the encoder and the heads of a spec."""
        self.spec = spec
        semantic, entity = spec.projection_dim, spec.entity_dims[0]
        self.encoder = Encoder(spec.encoder_spec())
        self.pooling = build_pooling(spec.pooling, spec.hidden_size)
        kinds = spec.pooling_kinds
        self.pooling_mixture = PoolingMixture(kinds, spec.hidden_size) if kinds else None
        self.adapters = Adapters(spec.pooled_size, spec.adapters, spec.adapter_size) if spec.adapters else None
        self.semantic = SemanticHead(
            spec.pooled_size, semantic, project=spec.semantic_projection, bias=spec.semantic_bias
        )
        self.entity = EntityHead(spec.hidden_size, entity, spec.vocab_size)
        self.fusion = EntityFusion(entity, semantic)
        self.ranking = RankingHead(semantic)
        self.anchors = AnchorHead(semantic)
        self.bridge = HashBridge(semantic + entity, semantic)
        self.anomaly = AnomalyHead(semantic, spec.anomaly_prototypes, spec.anomaly_calibration, spec.anomaly_method)

    def gates(self) -> list[nn.Parameter]:
        """Returns the zero-start gates, which have a learning rate of their own."""
        return [module.weight for module in self.modules() if isinstance(module, Gate)]

    def weight_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the weights that may have learning rates of their own: gates, routers and experts."""
        layers = [module for module in self.modules() if isinstance(module, ExpertFFN)]
        routers = [layer.router for layer in layers] + [m for m in self.modules() if isinstance(m, TextGate)]
        return {
            "gates": self.gates(),
            "routers": [weight for router in routers for weight in router.parameters()],
            "experts": [weight for layer in layers for weight in layer.experts()],
        }

    def apply_heads(
        self,
        encoded: Encoded,
        ids_BT: Tensor,
        mask_BT: Tensor,
        outputs: Sequence[str],
        *,
        prompt_length: int | Tensor | None = None,
        detached: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """Computes named outputs from the encoder's, in fp32; only the heads they need run.

        Args:
            encoded: the encoder's output.
            ids_BT, mask_BT: its input.
            outputs: names from `outputs_of` the model.
            prompt_length: see `forward`.
            detached: those of `outputs` whose gradient ends at their head and does not reach the encoder.

        Raises:
            UsageError: an output that does not exist.
        """
        check_outputs(self.spec, outputs)
        wanted = frozenset(outputs)
        routing = routing_outputs(encoded.signals, wanted & set(ROUTING_OUTPUTS))
        if len(routing) == len(wanted):
            return routing

        def head_input(name: str, value: Tensor) -> Tensor:
            return value.detach() if name in detached else value

        mask_BT = self._pooling_mask(mask_BT, prompt_length)
        x_BTD = encoded.states[-1].float()
        pooled_BP, gates = self._pooled(encoded, x_BTD, mask_BT)
        semantic_BD = self.semantic(pooled_BP).float()
        unit_BD = F.normalize(semantic_BD, dim=-1)
        values: dict[str, Tensor] = {"semantic": unit_BD}
        fused = self.spec.entity and wanted & {"embedding", "fast", "fast_logits"}
        if fused or "entity" in wanted:
            values["entity"] = self.entity(head_input("entity", x_BTD), mask_BT, ids_BT)
        if "embedding" in wanted:
            embedding_BD = self.fusion(semantic_BD, values["entity"]) if self.spec.entity else semantic_BD
            values["embedding"] = F.normalize(embedding_BD, dim=-1) if self.spec.normalize else embedding_BD
        if "ranking" in wanted:
            values["ranking"] = self.ranking(head_input("ranking", unit_BD))
        if "anchor64" in wanted:
            values["anchor64"] = self.anchors(head_input("anchor64", unit_BD))
        if wanted & {"fast", "fast_logits"}:
            hashed_BX = torch.cat((unit_BD, values["entity"]), dim=-1) if self.spec.entity else unit_BD
            values["fast_logits"] = self.bridge(head_input("fast_logits", hashed_BX))
            values["fast"] = pack_bits(values["fast_logits"])
        if wanted & {"anomaly", "anomaly_p", "is_ood"}:
            values["anomaly"] = self.anomaly(unit_BD)
        if wanted & {"anomaly_p", "is_ood"}:
            values["anomaly_p"] = self.anomaly.p_value(values["anomaly"])
            values["is_ood"] = values["anomaly_p"] <= self.spec.anomaly_level
        values |= routing | gates
        # Under autocast a head's matrix returns bf16.
        return {name: v.float() if v.is_floating_point() else v for name, v in values.items() if name in wanted}

    def _pooled(self, encoded: Encoded, x_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the pooled vector (B, P), and the gates of the texts by name of their output."""
        pooled_BP, found = self.pooling(x_BTD, mask_BT, encoded.signals[-1]), [encoded.depth_gate_BJ, None, None]
        if self.pooling_mixture is not None:
            pooled_BP, found[1] = self.pooling_mixture(pooled_BP, x_BTD, mask_BT, encoded.signals[-1])
        if self.adapters is not None:
            pooled_BP, found[2] = self.adapters(pooled_BP)
        gates = zip(GATE_OUTPUTS, found, strict=True)
        return pooled_BP, {name: value for name, value in gates if value is not None}

    def _pooling_mask(self, mask_BT: Tensor, prompt_length: int | Tensor | None) -> Tensor:
        if prompt_length is None or not self.spec.pooling_skips_prompt:
            return mask_BT
        skipped = int(prompt_length.flatten()[0]) if isinstance(prompt_length, Tensor) else prompt_length
        return mask_BT * (mask_BT.cumsum(-1) > skipped)


class NamedOutputs(EncoderWithHeads):
    """The plain module: token ids in, named outputs out.

    Args:
        spec: its shape. `load_outputs` reads one with its weights.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.build(spec)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        prompt_length: int | Tensor | None = None,
        outputs: Sequence[str] = ("embedding",),
    ) -> dict[str, Tensor]:
        """Computes the named outputs, each (B, …); see `SpectraOutput` for their shapes.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), non-zero at real tokens; ``None`` for all.
            token_type_ids: (B, T) segment ids; ``None`` for all 0.
            prompt_length: number of leading tokens that belong to the prompt; read only if the spec says
                `pooling_skips_prompt`.
            outputs: names from `outputs_of` the model.

        Raises:
            UsageError: an output that does not exist.
        """
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        encoded = self.encoder(input_ids, mask_BT, token_type_ids)
        return self.apply_heads(encoded, input_ids, mask_BT, outputs, prompt_length=prompt_length)


class _Uninitialized(TorchFunctionMode):
    """Skips random initial values: on the meta device they load torch's compiler, which takes a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def empty_outputs(spec: ModelSpec) -> NamedOutputs:
    """Returns a module on the meta device: parameter names and shapes without values."""
    with torch.device("meta"), _Uninitialized():
        return NamedOutputs(spec)


def load_outputs(spec: ModelSpec, weights: str | Path) -> NamedOutputs:
    """Reads a saved model without transformers.

    Args:
        spec: its shape, from `ModelSpec.from_config`.
        weights: its `model.safetensors`, of `SpectraModel`.

    Returns:
        the module in evaluation mode, its weights in fp32 on the CPU.

    Raises:
        SpectraError: the file cannot be read, or holds other weights than the spec describes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    module = empty_outputs(spec)
    try:
        state = load_file(weights)
        module.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise SpectraError(f"{weights} does not hold the weights that its config.json describes: {error}") from error
    return module.eval()
