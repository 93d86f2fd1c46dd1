"""Facts about a batch that every layer reads, computed once per forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spectra_nsa.encoder.waves import Waves, make_waves


@dataclass(frozen=True, kw_only=True)
class BatchContext:
    """Facts about a batch that all layers share.

    Attributes:
        mask_BT: True at real tokens.
        attend_B11T: the key mask for attention; ``None`` if no text is padded.
        positions_BT: position of each token in its own text, so padding on either side changes nothing.
        rotary: cosine and sine tables, (B, 1, T, K) each; ``None`` without rotary positions.
        ids_BT: token ids.
        texts_BD: the mean of each text's input embeddings, fp32; ``None`` if no part reads it.
        waves: cosines and sines over each text; ``None`` if no part filters.
    """

    mask_BT: Tensor
    attend_B11T: Tensor | None
    positions_BT: Tensor
    rotary: tuple[Tensor, Tensor] | None = None
    waves: Waves | None = None
    ids_BT: Tensor | None = None
    texts_BD: Tensor | None = None


def positions_of(mask_BT: Tensor) -> Tensor:
    """Counts positions from each text's first real token: (B, T) int64, 0 throughout leading padding."""
    leading_B1 = (mask_BT.cumsum(-1) == 0).sum(-1, keepdim=True)
    index_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return (index_T - leading_B1).clamp_min(0)


def rotary_tables(positions_BT: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Computes cos and sin of the rotary angles (Su et al. 2021, RoFormer, eq. 34), each (B, 1, T, K), in fp32.

    They are not kept in a buffer: a buffer that is not saved comes back uninitialized from a model that was built on
    the meta device.
    """
    exponent = torch.arange(0, head_size, 2, device=positions_BT.device, dtype=torch.float32) / head_size
    angles = positions_BT[:, :, None].float() * theta**-exponent
    angles_B1TK = torch.cat((angles, angles), dim=-1)[:, None]
    return angles_B1TK.cos(), angles_B1TK.sin()


def apply_rotary(x_BHTK: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates each pair (x_i, x_{i + K/2}) by its position's angle; keeps the dtype."""
    cos, sin = rotary
    first, second = x_BHTK.float().chunk(2, dim=-1)
    return (x_BHTK.float() * cos + torch.cat((-second, first), dim=-1) * sin).to(x_BHTK.dtype)


def text_means(x_BTD: Tensor, context: BatchContext) -> Tensor:
    """Returns the mean of each text's real tokens in fp32: (B, D)."""
    mask_BT1 = context.mask_BT[..., None].float()
    return (x_BTD.float() * mask_BT1).sum(1) / mask_BT1.sum(1).clamp_min(1)


def text_keys(context: BatchContext) -> Tensor:
    """Returns a hash of each text's token ids in their order, whatever the padding: (B,) int64."""
    assert context.ids_BT is not None
    prime = 2**31 - 1
    mixed_BT = ((context.ids_BT + 1) * 48_271 + (context.positions_BT + 1) * 69_621_007) % prime
    return (mixed_BT * mixed_BT % prime * context.mask_BT).sum(1) % prime


def make_context(
    mask_BT: Tensor,
    positions_BT: Tensor | None,
    *,
    rope_head_size: int | None = None,
    rope_theta: float = 10_000.0,
    modes: int | None = None,
) -> BatchContext:
    """Builds the context of a batch.

    Args:
        mask_BT: non-zero at real tokens.
        positions_BT: positions; ``None`` counts them from the mask.
        rope_head_size: K for rotary positions; ``None`` for none.
        rope_theta: base of the rotary frequencies.
        modes: number of frequencies that the spectral filter keeps; ``None`` for no filter.
    """
    mask_BT = mask_BT.bool()
    if positions_BT is None:
        positions_BT = positions_of(mask_BT)
    # Attention is fastest without a mask. The check is free on a CPU; on a GPU it would stall the queue, and a traced
    # graph would keep its answer.
    full = mask_BT.device.type == "cpu" and not torch.compiler.is_compiling() and bool(mask_BT.all())
    rotary = rotary_tables(positions_BT, rope_head_size, rope_theta) if rope_head_size else None
    return BatchContext(
        mask_BT=mask_BT,
        attend_B11T=None if full else mask_BT[:, None, None, :],
        positions_BT=positions_BT,
        rotary=rotary,
        waves=make_waves(mask_BT, modes) if modes else None,
    )
