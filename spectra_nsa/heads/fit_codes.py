"""Fitting binary codes to a corpus: a rotation for each block of bits, then distillation (docs/model.md, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.core.errors import SpectraError
from spectra_nsa.heads.bridge import BITS, SHARPNESS, WIDTHS, HashBridge, code_divergence

MIN_TEXTS = 512  # fewer texts are too few to fit 256 bits to
TEMPERATURE = 0.03  # of the similarity distributions
MAX_STEEPNESS = 20.0  # factor inside the tanh at the last step
CANDIDATES = 512  # documents per step that queries are compared with; 4,096 gave slightly worse codes

Pair = tuple[Tensor, Tensor]  # the codes' input (N, X), and the vectors whose cosines it approximates (N, D)


def fit_codes(
    bridge: HashBridge,
    documents: Pair,
    queries: Pair | None = None,
    *,
    steps: int = 300,
    batch: int = 512,
    lr: float = 0.007,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Fits A, c and the decoder so that Hamming neighbors are cosine neighbors, at every nested width.

    The start is iterative quantization (Gong et al. 2013) within the block of directions that each width adds. The
    distillation then minimizes the KL divergence from each text's distribution of cosines over the documents to that
    of its relaxed codes, summed over the widths. A tanh relaxes the codes and is annealed to a sign.

    Args:
        bridge: changed in place.
        documents: the codes' input (N, X), whose X may omit the entity part, and the vectors whose cosines it
            approximates (N, D).
        queries: the same for typical queries; ``None`` if there are only documents.
        steps: distillation steps.
        batch: documents and queries drawn per step, to compare with `CANDIDATES` documents.
        lr: learning rate of the distillation.
        seed: seed of batches and rotations.
        on_step: called with step and loss.

    Raises:
        SpectraError: there are too few texts.
    """
    N = len(documents[0])
    check_text_count(N)
    generator = torch.Generator().manual_seed(seed)
    mean_X = documents[0].float().mean(0)
    centered_NX, target_ND = _centered(documents, mean_X)
    inputs = [(centered_NX, target_ND), *([_centered(queries, mean_X)] if queries is not None else [])]
    query_MX, query_MD = map(torch.cat, zip(*inputs, strict=True))
    weight = block_itq(centered_NX, generator)
    weight = (weight / (centered_NX @ weight.T).std(0)[:, None].clamp_min(1e-6)).requires_grad_()
    offset = torch.zeros(BITS, requires_grad=True)
    sharpness = torch.tensor(SHARPNESS, requires_grad=True)
    optimizer = torch.optim.Adam([weight, offset, sharpness], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        query_rows = torch.randint(len(query_MX), (batch,), generator=generator)
        document_rows = torch.randperm(N, generator=generator)[:CANDIDATES]
        steepness = MAX_STEEPNESS ** (step / max(1, steps - 1))
        query_BW = torch.tanh(steepness * (query_MX[query_rows] @ weight.T + offset))
        code_CW = torch.tanh(steepness * (centered_NX[document_rows] @ weight.T + offset))
        cosine_BC = query_MD[query_rows] @ target_ND[document_rows].T
        same_BC = query_rows[:, None] == document_rows
        loss = code_divergence(query_BW, code_CW, sharpness, cosine_BC, same_BC, TEMPERATURE)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, loss.item())
    _write(bridge, weight.detach(), offset.detach(), sharpness.detach(), mean_X, centered_NX, target_ND)


def _centered(pair: Pair, mean_X: Tensor) -> Pair:
    """Returns the centered input of the codes, and unit vectors."""
    return pair[0].float() - mean_X, F.normalize(pair[1].float(), dim=-1)


def hashed_pair(vectors: Mapping[str, np.ndarray], *, entity: bool) -> Pair:
    """Returns the codes' input and the vectors whose cosines it approximates, from a model's outputs.

    Args:
        vectors: `semantic` and `embedding`, (N, D), and `entity` if it is part of the input.
        entity: whether `entity` is part of the input beside `semantic`, as set in the model's config.
    """
    parts = [vectors["semantic"], vectors["entity"]] if entity else [vectors["semantic"]]
    return torch.from_numpy(np.concatenate(parts, axis=1)), torch.from_numpy(vectors["embedding"])


def check_text_count(texts: int, source: str = "the corpus") -> None:
    """Checks that there are enough different texts for a fit, before any of them is encoded.

    Raises:
        SpectraError: there are too few.
    """
    if texts < MIN_TEXTS:
        raise SpectraError(f"codes of {BITS} bits need at least {MIN_TEXTS} different texts; {source} has {texts:,}.")


@torch.no_grad()
def block_itq(centered_NX: Tensor, generator: torch.Generator, rounds: int = 40) -> Tensor:
    """Finds a rotated basis for each width's additional bits by iterative quantization.

    The first block rotates the leading principal directions. Each later block rotates those of the residual that a
    linear decoder of all earlier bits leaves. Compared with the next principal directions of the data, this gives
    strong directions several bits.

    Returns:
        (256, X).
    """
    blocks: list[Tensor] = []
    residual_NX = centered_NX
    for first, last in zip((0, *WIDTHS), WIDTHS, strict=False):
        size = last - first
        directions_XX = torch.linalg.svd(residual_NX.T @ residual_NX)[2]
        basis_bX = directions_XX[:size]
        if len(basis_bX) < size:
            random_bX = F.normalize(
                torch.randn(size - len(basis_bX), centered_NX.shape[1], generator=generator), dim=-1
            )
            basis_bX = torch.cat([basis_bX, random_bX])
        values_Nb = centered_NX @ basis_bX.T
        rotation_bb = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
        for _ in range(rounds):
            left, _, right = torch.linalg.svd(values_Nb.T @ (values_Nb @ rotation_bb).sign())
            rotation_bb = left @ right
        blocks.append(rotation_bb.T @ basis_bX)
        bits_Nb = (centered_NX @ torch.cat(blocks).T).sign()
        residual_NX = centered_NX - bits_Nb @ linear_decoder(bits_Nb, centered_NX)
    return torch.cat(blocks)


def linear_decoder(bits_NB: Tensor, target_ND: Tensor) -> Tensor:
    """Computes a ridge regression from bits of ±1 to vectors, (B, D)."""
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
    centered_NX: Tensor,
    target_ND: Tensor,
) -> None:
    """Writes the fitted map into the bridge and fits the decoder to its bits."""
    bridge.project.weight.zero_()
    bridge.project.weight[:, : weight_BX.shape[1]] = weight_BX.to(bridge.project.weight.device)
    bridge.project.bias.copy_(offset_B - weight_BX @ mean_X)
    bridge.sharpness.copy_(sharpness_W)
    bits_NB = torch.where(centered_NX @ weight_BX.T + offset_B > 0, 1.0, -1.0)
    bridge.decode.weight.copy_(linear_decoder(bits_NB, target_ND).T)
