"""Named outputs of token ids in a number format, with an encoder whose matrices are packed for the CPU's kernels.

torch multiplies by a matrix in the order in which it is stored, and in bf16 converts it first, in every pass. Here that
happens once. The packed matrices are copies: they take half as much memory again in bf16, as much again in fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from spectra_nsa.core.precision import autocast, cpu_multiplies_bf16
from spectra_nsa.encoder.encoder import Encoder
from spectra_nsa.heads.outputs import EncoderWithHeads

_LARGEST = 64_000_000  # weights: larger encoders are not packed in fp32, which would double their memory
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_PACKED: WeakKeyDictionary[nn.Module, dict[str, _Packed]] = WeakKeyDictionary()


def named_outputs(
    model: EncoderWithHeads, features: Mapping[str, Any], outputs: Sequence[str], precision: str
) -> dict[str, Tensor]:
    """Computes named outputs, each (B, …) in fp32; the heads compute in fp32 in any case.

    Args:
        model: encoder and heads, in evaluation mode.
        features: `input_ids` (B, T), and `attention_mask`, `token_type_ids` and `prompt_length` if there are any.
        outputs: names from `outputs_of` the model.
        precision: a number format from `resolve_precision`, for the encoder.

    Raises:
        UsageError: an output that does not exist.
    """
    ids_BT = features["input_ids"]
    mask_BT = features.get("attention_mask")
    mask_BT = torch.ones_like(ids_BT) if mask_BT is None else mask_BT
    encoder = packed_encoder(model.encoder, precision)
    kind = ids_BT.device.type
    with torch.autocast(kind, enabled=False):
        with autocast(kind, precision):
            encoded = encoder(ids_BT, mask_BT, features.get("token_type_ids"))
        return model.apply_heads(encoded, ids_BT, mask_BT, outputs, prompt_length=features.get("prompt_length"))


def packed_encoder(encoder: Encoder, precision: str) -> Encoder:
    """Returns an encoder that computes the same with packed matrices, or the encoder itself if nothing is gained.

    The packed one is kept until a weight changes.

    Args:
        encoder: in evaluation mode.
        precision: ``"fp32"`` or ``"bf16"``; others are not packed.
    """
    kept = _PACKED.setdefault(encoder, {})
    found = kept.get(precision)
    if found is None or not found.is_current(encoder.trainings):
        kept[precision] = found = _pack(encoder, precision)
    return encoder if found.encoder is None else found.encoder


@dataclass(frozen=True)
class _Packed:
    """A packed encoder, and what it was made of.

    Attributes:
        encoder: the packed one; ``None`` if nothing was packed.
        children: the children of each module that has a twin, as they are and as they were.
        layers: the layers that were packed, with their matrix and bias.
        trainings: how often the encoder had been put into training mode.
    """

    encoder: Encoder | None
    children: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()
    layers: tuple[tuple[nn.Linear, _Watched, _Watched | None], ...] = ()
    trainings: int = 0

    def is_current(self, trainings: int) -> bool:
        return (
            self.trainings == trainings
            and all(now == then for now, then in self.children)
            and all(_is_current(*layer) for layer in self.layers)
        )


class PackedLinear(nn.Module):
    """A linear layer with its matrix in the order that oneDNN prefers.

    Args:
        layer: a layer with weights in fp32 on the CPU.
        dtype: to compute in.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype))
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)

    def forward(self, x_BTD: Tensor) -> Tensor:
        y_BTO: Tensor = torch.ops.mkldnn._linear_pointwise(x_BTD.to(self.dtype), self.weight, self.bias, "none", [], "")
        return y_BTO


def _pack(encoder: Encoder, precision: str) -> _Packed:
    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear) and _fits(layer)]
    size = sum(layer.weight.numel() for layer in layers)
    useful = (precision == "bf16" and cpu_multiplies_bf16()) or (precision == "fp32" and size <= _LARGEST)
    if not layers or not useful or not _has_kernels():
        return _Packed(None, trainings=encoder.trainings)
    children: list[tuple[dict[str, Any], dict[str, Any]]] = []
    with torch.inference_mode(False), torch.no_grad():
        twin = _twin(encoder, _TYPES[precision], children)
    watched = [(x, _Watched(x.weight), None if x.bias is None else _Watched(x.bias)) for x in layers]
    return _Packed(twin, tuple(children), tuple(watched), encoder.trainings)


def _twin(module: Any, dtype: torch.dtype, seen: list[tuple[dict[str, Any], dict[str, Any]]]) -> Any:
    """Returns a module that shares everything with another, except that its linear layers are packed.

    Args:
        module: the other one.
        dtype: see `PackedLinear`.
        seen: receives the children of all modules that have a twin.
    """
    if _fits(module):
        return PackedLinear(module, dtype)
    if not any(_fits(child) for child in module.modules()):
        return module
    seen.append((module._modules, dict(module._modules)))
    twin = module.__class__.__new__(module.__class__)
    children = {name: child and _twin(child, dtype, seen) for name, child in module._modules.items()}
    twin.__dict__ = module.__dict__ | {"_modules": children}
    return twin


def _fits(layer: Any) -> bool:
    """Returns whether a module is a plain linear layer in fp32 on the CPU."""
    return (
        type(layer) is nn.Linear
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    )


class _Watched:
    """A tensor of the encoder, and whether its values are still what they were.

    Fused optimizers change values without telling torch, so some of the values themselves are compared.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.address = tensor, tensor.data_ptr()
        self.version = 0 if tensor.is_inference() else tensor._version
        self.values = tensor.detach().numpy().reshape(-1)  # of the same memory
        self.probes = (0, len(self.values) // 2, len(self.values) - 1)
        self.seen = [self.values[at] for at in self.probes]

    def is_current(self, tensor: Tensor) -> bool:
        if tensor is not self.tensor or tensor.data_ptr() != self.address:
            return False
        if not tensor.is_inference() and tensor._version != self.version:
            return False
        return all(self.values[at] == value for at, value in zip(self.probes, self.seen, strict=True))


def _is_current(layer: nn.Linear, weight: _Watched, bias: _Watched | None) -> bool:
    """Returns whether a layer is as it was: without hooks, and with the same values."""
    if layer._forward_hooks or layer._forward_pre_hooks or not weight.is_current(layer.weight):
        return False
    return layer.bias is None if bias is None else layer.bias is not None and bias.is_current(layer.bias)


def _has_kernels() -> bool:
    """Returns whether this torch has oneDNN's kernels for packed matrices."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    try:
        PackedLinear(nn.Linear(16, 16), torch.float32)(torch.zeros(1, 16))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True
