"""The maximum of masked-LM logits over a text's tokens, without the logits of all tokens in memory.

SPLADE (Formal et al. 2021) pools log1p(relu(logit)) over tokens. Both functions are monotone, so the maximum may come
first: max_t log1p(relu(z_t)) = log1p(relu(max_t z_t)). Here the logits exist only for one block of the vocabulary at a
time, so that a batch needs B × V numbers instead of B × T × V. The backward pass touches only entries above zero.

sentence-transformers' `SpladePooling` computes the same vectors from all logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BLOCK_LOGITS = 2_000_000  # logits in memory at a time: a block stays in a CPU's cache
_BLOCK_LOGITS_GPU = 256_000_000
_FEWEST_COLUMNS = 256


def max_relu_logits(states_BTD: Tensor, mask_BT: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Computes relu(max_t (weight · state_t + bias)) over the real tokens of each text.

    Under autocast, the products are computed in its number format, as a linear layer's are. If several tokens share the
    maximum, the gradient goes to one of them.

    Args:
        states_BTD: what the decoder of a masked LM reads.
        mask_BT: nonzero at real tokens. The row of a text without any becomes zero.
        weight_VD: the decoder's weight.
        bias_V: its bias; ``None`` for none.

    Returns:
        (B, V) in fp32.
    """
    pooled: Tensor = _MaxReluLogits.apply(states_BTD, mask_BT.bool(), weight_VD, bias_V)
    return pooled


@torch.no_grad()
def max_logits(states_BTD: Tensor, mask_BT: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Computes max_t (weight · state_t + bias), also below zero: (B, V) fp32, without a gradient.

    The arguments are those of `max_relu_logits`. A text without tokens counts as one of padding.
    """
    return _largest(_fill_padding(states_BTD, mask_BT.bool()), weight_VD.to(states_BTD.dtype), bias_V)


class _MaxReluLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states_BTD: Tensor, mask_BT: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
        states_BTD = _fill_padding(states_BTD, mask_BT)
        device = states_BTD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight_VD.dtype
        with torch.autocast(device, enabled=False):
            states, weight = states_BTD.to(dtype), weight_VD.to(dtype)
            pooled_BV = _largest(states, weight, bias_V).clamp_min_(0)
            pooled_BV *= mask_BT.any(1, keepdim=True)
        ctx.save_for_backward(states, mask_BT, weight, pooled_BV)
        ctx.dtypes = states_BTD.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype
        return pooled_BV

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, mask_BT, weight, pooled_BV = ctx.saved_tensors
        states_dtype, weight_dtype, bias_dtype = ctx.dtypes
        gradient_BV = torch.where(pooled_BV > 0, gradients[0].float(), 0.0)
        to_states = torch.zeros(states.shape[0] * states.shape[1], states.shape[2], device=states.device)
        to_weight = torch.zeros(weight.shape, device=states.device) if ctx.needs_input_grad[2] else None
        active_U = gradient_BV.any(0).nonzero().squeeze(1)
        with torch.autocast(states.device.type, enabled=False):
            for block in _blocks(states, len(active_U)):
                terms = active_U[block]
                best_BU = _logits(states, weight[terms]).argmax(1)
                _add_block(best_BU, gradient_BV[:, terms], terms, states, weight, to_states, to_weight)
        to_states_BTD = _collect_padding(to_states.view(states.shape), mask_BT)
        return (
            to_states_BTD.to(states_dtype) if ctx.needs_input_grad[0] else None,
            None,
            None if to_weight is None else to_weight.to(weight_dtype),
            gradient_BV.sum(0).to(bias_dtype) if bias_dtype is not None and ctx.needs_input_grad[3] else None,
        )


def _add_block(
    best_BU: Tensor,
    gradient_BU: Tensor,
    terms_U: Tensor,
    states: Tensor,
    weight: Tensor,
    to_states: Tensor,
    to_weight: Tensor | None,
) -> None:
    """Adds the gradients of some terms' maxima to those of the states, (B · T, D), and of the weight, (V, D)."""
    texts, columns = gradient_BU.nonzero(as_tuple=True)
    tokens = texts * states.shape[1] + best_BU[texts, columns]
    factor = gradient_BU[texts, columns].unsqueeze(1)
    to_states.index_add_(0, tokens, factor * weight[terms_U[columns]].float())
    if to_weight is not None:
        to_weight.index_add_(0, terms_U[columns], factor * states.flatten(0, 1)[tokens].float())


def _largest(states_BTD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """Computes the largest logit of each term in each text: (B, V) fp32."""
    pooled_BV = torch.empty(len(states_BTD), len(weight_VD), dtype=torch.float32, device=states_BTD.device)
    for block in _blocks(states_BTD, len(weight_VD)):
        pooled_BV[:, block] = _logits(states_BTD, weight_VD[block]).amax(1).float()
    return pooled_BV if bias_V is None else pooled_BV.add_(bias_V.float())


def _logits(states_BTD: Tensor, weight_UD: Tensor) -> Tensor:
    """Computes the logits of some terms: (B, T, U)."""
    batch, tokens, width = states_BTD.shape
    return (states_BTD.reshape(-1, width) @ weight_UD.T).view(batch, tokens, -1)


def _blocks(states_BTD: Tensor, terms: int) -> list[slice]:
    """Splits terms into blocks whose logits fit into the memory for them."""
    batch, tokens, _ = states_BTD.shape
    logits = _BLOCK_LOGITS if states_BTD.device.type == "cpu" else _BLOCK_LOGITS_GPU
    step = max(_FEWEST_COLUMNS, logits // max(1, batch * tokens))
    return [slice(start, start + step) for start in range(0, terms, step)]


def _fill_padding(states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Replaces padding by copies of each text's first real token, which leave the maximum as it is."""
    first_B = mask_BT.int().argmax(1)
    first_B1D = states_BTD[torch.arange(len(states_BTD), device=states_BTD.device), first_B].unsqueeze(1)
    return torch.where(mask_BT.unsqueeze(-1), states_BTD, first_B1D)


def _collect_padding(gradient_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Returns the gradient before `_fill_padding`: what went to the copies belongs to the first real token."""
    real_BT1 = mask_BT.unsqueeze(-1)
    copies_BD = (gradient_BTD * ~real_BT1).sum(1)
    gradient_BTD = gradient_BTD * real_BT1
    gradient_BTD[torch.arange(len(mask_BT), device=mask_BT.device), mask_BT.int().argmax(1)] += copies_BD
    return gradient_BTD
