"""Fitting the hash to a corpus: a rotation found block by block, then distillation (docs/model.md, section 5)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.heads.bridge import BITS, WIDTHS, HashBridge, code_divergence

SMALLEST = 512  # vectors below which there is nothing to fit 256 bits to
TEACHER = 0.03  # temperature of the similarity distributions
STEEPEST = 20.0


def fit_codes(
    bridge: HashBridge,
    hashed_NX: Tensor,
    target_ND: Tensor,
    *,
    steps: int = 300,
    batch: int = 512,
    lr: float = 0.005,
    seed: int = 0,
    watch: Callable[[int, float], None] | None = None,
) -> None:
    """Fits A, c and the decoder so that Hamming neighbours are cosine neighbours, at every nested width.

    The start is iterative quantisation (Gong et al. 2013) within the blocks of principal directions that each width
    adds. Then KL from the in-batch distribution of cosines to that of relaxed codes, summed over the widths, the
    tanh annealed to a sign.

    Args:
        bridge: changed in place.
        hashed_NX: what is hashed, (N, X); X may leave the entity part out.
        target_ND: the vectors whose cosine counts, (N, D).
        steps: of the distillation.
        batch: texts a step.
        lr: of the distillation.
        seed: of batches and rotations.
        watch: called with step and loss.

    Raises:
        SpectraError: too few vectors.
    """
    N = len(hashed_NX)
    if N < SMALLEST:
        raise SpectraError(f"{N} texts are too few to fit codes of {BITS} bits to; give at least {SMALLEST}.")
    generator = torch.Generator().manual_seed(seed)
    hashed_NX, target_ND = hashed_NX.float(), F.normalize(target_ND.float(), dim=-1)
    mean_X = hashed_NX.mean(0)
    centred_NX = hashed_NX - mean_X
    weight = block_itq(centred_NX, generator)
    weight = (weight / (centred_NX @ weight.T).std(0)[:, None].clamp_min(1e-6)).requires_grad_()
    offset = torch.zeros(BITS, requires_grad=True)
    sharpness = torch.full((len(WIDTHS),), 0.0, requires_grad=True)
    optimizer = torch.optim.Adam([weight, offset, sharpness], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.randint(N, (min(batch, N),), generator=generator).unique()
        steepness = STEEPEST ** (step / max(1, steps - 1))
        code_BN = torch.tanh(steepness * (centred_NX[rows] @ weight.T + offset))
        loss = code_divergence(code_BN, sharpness, target_ND[rows], TEACHER)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if watch is not None:
            watch(step, float(loss))
    _write(bridge, weight.detach(), offset.detach(), sharpness.detach(), mean_X, centred_NX, target_ND)


@torch.no_grad()
def block_itq(centred_NX: Tensor, generator: torch.Generator, rounds: int = 40) -> Tensor:
    """(256, X): for each width's new bits, the directions in which the bits before lose most, rotated.

    The first block rotates the leading principal directions. Each later one takes those of what a linear decoder of
    the bits so far leaves over, which is more than the next directions of the whole: strong ones get several bits.
    """
    blocks: list[Tensor] = []
    left_over_NX = centred_NX
    for first, last in zip((0, *WIDTHS), WIDTHS, strict=False):
        size = last - first
        directions_XX = torch.linalg.svd(left_over_NX.T @ left_over_NX)[2]
        basis_bX = directions_XX[:size]
        if len(basis_bX) < size:
            more = F.normalize(torch.randn(size - len(basis_bX), centred_NX.shape[1], generator=generator), dim=-1)
            basis_bX = torch.cat([basis_bX, more])
        values_Nb = centred_NX @ basis_bX.T
        rotation_bb = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
        for _ in range(rounds):
            left, _, right = torch.linalg.svd(values_Nb.T @ (values_Nb @ rotation_bb).sign())
            rotation_bb = left @ right
        blocks.append(rotation_bb.T @ basis_bX)
        bits_Nb = (centred_NX @ torch.cat(blocks).T).sign()
        left_over_NX = centred_NX - bits_Nb @ linear_decoder(bits_Nb, centred_NX)
    return torch.cat(blocks)


def linear_decoder(bits_NB: Tensor, target_ND: Tensor) -> Tensor:
    """(B, D): ridge regression from bits of ±1."""
    width = bits_NB.shape[1]
    ridge_BB = bits_NB.T @ bits_NB + 0.01 * len(bits_NB) * torch.eye(width)
    return torch.linalg.solve(ridge_BB, bits_NB.T @ target_ND)


@torch.no_grad()
def _write(
    bridge: HashBridge,
    weight_BX: Tensor,
    offset_B: Tensor,
    sharpness_W: Tensor,
    mean_X: Tensor,
    centred_NX: Tensor,
    target_ND: Tensor,
) -> None:
    bridge.project.weight.zero_()
    bridge.project.weight[:, : weight_BX.shape[1]] = weight_BX.to(bridge.project.weight.device)
    bridge.project.bias.copy_(offset_B - weight_BX @ mean_X)
    bridge.sharpness.copy_(sharpness_W)
    bits_NB = torch.where(centred_NX @ weight_BX.T + offset_B > 0, 1.0, -1.0)
    bridge.decode.weight.copy_(linear_decoder(bits_NB, target_ND).T)
