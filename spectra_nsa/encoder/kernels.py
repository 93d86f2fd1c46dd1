"""The one place that chooses an attention kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √K + mask) v by torch's fused kernels.

    Args:
        q, k, v: (B, H, T, K).
        mask: (B, 1, 1, T), True at keys that may be attended to; ``None`` for all.
        dropout: share of the attention weights dropped; 0 outside training.

    Returns:
        (B, H, T, K) in the dtype of `v`.
    """
    # On the CPU the fused backward pass is several times slower in bf16 than in fp32 (benchmarks/attention.py).
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled() and q.requires_grad:
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, dropout_p=dropout)
        return out.to(v.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
