"""Attention for library models: the fused kernel in the number format whose backward pass is fast on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "spectra_sdpa"


def use_fast_backward(model: Any) -> None:
    """Lets a model that uses torch's fused attention compute it in fp32 when it trains in bf16 on a CPU.

    There the fused backward pass is several times slower in bf16. Vectors differ by rounding only. Other attention
    kernels stay; the saved config does not name the kernel.

    Args:
        model: changed in place; a model that is none of transformers' stays as it is.
    """
    if not isinstance(model, PreTrainedModel) or model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if not (slow and torch.is_grad_enabled() and query.requires_grad):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is not None and attention_mask.dtype == torch.bfloat16:
        attention_mask = attention_mask.float()
    with torch.autocast("cpu", enabled=False):
        parts = query.float(), key.float(), value.float()
        out, weights = sdpa_attention_forward(module, *parts, attention_mask, **kwargs)
    return out.to(value.dtype), weights
