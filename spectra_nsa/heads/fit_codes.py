"""Fitting the hash to a corpus: a rotation found block by block, then distillation (docs/model.md, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.heads.bridge import BITS, SHARPNESS, WIDTHS, HashBridge, code_divergence

SMALLEST = 512  # vectors below which there is nothing to fit 256 bits to
TEACHER = 0.03  # temperature of the similarity distributions
STEEPEST = 20.0
CANDIDATES = 512  # documents a step that queries are compared with; 4,096 gave slightly worse codes

Pair = tuple[Tensor, Tensor]  # what is hashed (N, X), and the vectors whose cosine counts (N, D)


def fit_codes(
    bridge: HashBridge,
    documents: Pair,
    queries: Pair | None = None,
    *,
    steps: int = 300,
    batch: int = 512,
    lr: float = 0.007,
    seed: int = 0,
    watch: Callable[[int, float], None] | None = None,
) -> None:
    """Fits A, c and the decoder so that Hamming neighbours are cosine neighbours, at every nested width.

    The start is iterative quantisation (Gong et al. 2013) within the blocks of principal directions that each width
    adds. Then KL from each text's distribution of cosines over the documents to that of relaxed codes, summed over the
    widths, the tanh annealed to a sign.

    Args:
        bridge: changed in place.
        documents: what is hashed, (N, X), where X may leave the entity part out; and the vectors whose cosine counts,
            (N, D).
        queries: the same of texts like those that will be searched with; ``None`` takes documents only.
        steps: of the distillation.
        batch: documents and queries a step.
        lr: of the distillation.
        seed: of batches and rotations.
        watch: called with step and loss.

    Raises:
        SpectraError: too few vectors.
    """
    N = len(documents[0])
    check_enough(N)
    generator = torch.Generator().manual_seed(seed)
    mean_X = documents[0].float().mean(0)
    centred_NX, target_ND = documents[0].float() - mean_X, F.normalize(documents[1].float(), dim=-1)
    asked_MX, asked_MD = centred_NX, target_ND
    if queries is not None:
        asked_MX = torch.cat([centred_NX, queries[0].float() - mean_X])
        asked_MD = torch.cat([target_ND, F.normalize(queries[1].float(), dim=-1)])
    weight = block_itq(centred_NX, generator)
    weight = (weight / (centred_NX @ weight.T).std(0)[:, None].clamp_min(1e-6)).requires_grad_()
    offset = torch.zeros(BITS, requires_grad=True)
    sharpness = torch.tensor(SHARPNESS, requires_grad=True)
    optimizer = torch.optim.Adam([weight, offset, sharpness], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        asked = torch.randint(len(asked_MX), (batch,), generator=generator)
        found = torch.randperm(N, generator=generator)[:CANDIDATES]
        steepness = STEEPEST ** (step / max(1, steps - 1))
        loss = code_divergence(
            torch.tanh(steepness * (asked_MX[asked] @ weight.T + offset)),
            torch.tanh(steepness * (centred_NX[found] @ weight.T + offset)),
            sharpness,
            asked_MD[asked] @ target_ND[found].T,
            asked[:, None] == found[None, :],
            TEACHER,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if watch is not None:
            watch(step, loss.item())
    _write(bridge, weight.detach(), offset.detach(), sharpness.detach(), mean_X, centred_NX, target_ND)


def hashed_pair(vectors: Mapping[str, np.ndarray], *, entity: bool) -> Pair:
    """What the bridge hashes and the vectors whose cosine counts, from a model's outputs.

    Args:
        vectors: `semantic` and `embedding`, (N, D).
        entity: whether `entity` is hashed beside `semantic`, as the model's config has it.
    """
    parts = [vectors["semantic"], vectors["entity"]] if entity else [vectors["semantic"]]
    return torch.from_numpy(np.concatenate(parts, axis=1)), torch.from_numpy(vectors["embedding"])


def check_enough(texts: int) -> None:
    """That so many texts are enough, before any of them is encoded.

    Raises:
        SpectraError: they are not.
    """
    if texts < SMALLEST:
        raise SpectraError(f"{texts} texts are too few to fit codes of {BITS} bits to; give at least {SMALLEST}.")


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
