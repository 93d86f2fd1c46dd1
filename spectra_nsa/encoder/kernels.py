"""The choice of kernels, for attention and for its entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_BLOCK = 256  # queries per block of the entropy, so that memory grows linearly with length
LONG = 192  # tokens from which the fused kernel computes the entropy faster than explicit scores do, on a CPU


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Computes softmax(q kᵀ / √K + mask) v by torch's fused kernels.

    Args:
        q, k, v: (B, H, T, K).
        mask: (B, 1, 1, T), True at keys that may be attended to; ``None`` for all.
        dropout: share of attention weights to drop; 0 outside training.

    Returns:
        (B, H, T, K) in the dtype of `v`.
    """
    # On a CPU the fused backward pass is several times slower in bf16 than in fp32.
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled() and q.requires_grad:
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask, dropout_p=dropout)
        return out.to(v.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


@torch.no_grad()
def attention_entropy(q: Tensor, k: Tensor, mask_BT: Tensor) -> Tensor:
    """Computes E = −Σ_j p_j log p_j / log n of each query's attention p, in [0, 1]. No gradient flows through it.

    Computed as (lse − Σ_j p_j s_j) / log max(n, 2) from the scores s, in fp32, a block of queries at a time.

    Args:
        q, k: (B, H, T, K).
        mask_BT: True at real tokens; n counts them.

    Returns:
        (B, H, T) fp32.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k = q.float() * q.shape[-1] ** -0.5, k.float()
        scale_B11 = mask_BT.sum(-1).clamp_min(2).float().log()[:, None, None]
        hidden_B11T = ~mask_BT[:, None, None, :]
        if torch.compiler.is_compiling():  # a choice by length or a loop would fix the example's in the graph
            entropy_BHT = _entropy(q, k, hidden_B11T)
        elif q.device.type == "cpu" and q.shape[2] >= LONG:
            entropy_BHT = _fused_entropy(q, k, hidden_B11T)
        else:
            parts = [_entropy(part, k, hidden_B11T) for part in q.split(QUERY_BLOCK, dim=2)]
            entropy_BHT = torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]
        return (entropy_BHT / scale_B11).clamp(0.0, 1.0)


def _fused_entropy(q: Tensor, k: Tensor, hidden_B11T: Tensor) -> Tensor:
    """Computes `_entropy` from the log-sum-exp of the CPU's flash attention and the mean key: keys as values."""
    bias = torch.zeros(hidden_B11T.shape).masked_fill_(hidden_B11T, -1e30)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    mean_key, lse = flash(q, k, k, 0.0, False, attn_mask=bias, scale=1)
    return lse - (q * mean_key).sum(-1)


def _entropy(q: Tensor, k: Tensor, hidden_B11T: Tensor) -> Tensor:
    """Computes the entropy in nats of softmax(q kᵀ) over the keys that are not hidden."""
    scores = (q @ k.transpose(-1, -2)).masked_fill_(hidden_B11T, -1e30)
    scores -= scores.amax(-1, keepdim=True)
    weights = scores.exp()
    total = weights.sum(-1)
    return total.log() - (weights.mul_(scores)).sum(-1) / total
