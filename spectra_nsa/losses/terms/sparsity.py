"""Regularizers of sparse vectors, for queries and documents apart.

Legend: N texts of a side, V the vocabulary. All vectors are of the batch of all processes, so that the sparsity of a
trained model does not depend on their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spectra_nsa.config.terms import SIDES, Side
from spectra_nsa.losses.terms.term import Term, TermBatch

CUTOFF, STEEPNESS = 0.1, 10.0  # of the weight by document frequency


def flops(vectors_NV: Tensor) -> Tensor:
    """Computes Σ_v (mean_n w_nv)², which grows with the products of a search (Paria et al. 2020)."""
    return vectors_NV.mean(0).square().sum()


def l1(vectors_NV: Tensor) -> Tensor:
    """Computes the mean sum of a text's weights."""
    return vectors_NV.sum(1).mean()


def df_flops(vectors_NV: Tensor, frequency_V: Tensor) -> Tensor:
    """Computes FLOPS with each term weighted by a steep function of its document frequency (Porco et al. 2025).

    Args:
        vectors_NV: the vectors.
        frequency_V: the share of the texts in which each term is active.
    """
    return (frequency_weight(frequency_V) * vectors_NV.mean(0).square()).sum()


def frequency_weight(frequency_V: Tensor) -> Tensor:
    """Computes 1 / (1 + (f^(log_α 2) − 1)^β): near 0 for rare terms, ½ at f = α, 1 for terms of all texts."""
    power = math.log(2) / math.log(CUTOFF)
    return 1 / (1 + (frequency_V.double().clamp(1e-9, 1).pow(power) - 1).pow(STEEPNESS)).float()


def over_threshold(vectors_NV: Tensor, threshold: int | None) -> Tensor:
    """Sets the vectors of texts with at most `threshold` active dimensions to zero (Geng et al. 2025, ℓ0 mask).

    ``None`` leaves them all.
    """
    if threshold is None:
        return vectors_NV
    return vectors_NV * ((vectors_NV > 0).sum(1, keepdim=True) > threshold)


def side_vectors(batch: TermBatch, side: Side) -> Tensor:
    """Returns the vectors of a side, (N, V): the first column's are the queries', all others documents'."""
    columns = batch.columns("sparse")
    return columns[0] if side == "query" else torch.cat(columns[1:])


def _of_side(side: Side, penalty: Callable[[Tensor], Tensor]) -> Callable[[TermBatch], Tensor]:
    return lambda batch: penalty(over_threshold(side_vectors(batch, side), batch.threshold))


def _df_flops(side: Side) -> Callable[[TermBatch], Tensor]:
    def compute(batch: TermBatch) -> Tensor:
        vectors_NV = side_vectors(batch, side)
        frequency_V = batch.frequencies.get(side)
        if frequency_V is None:
            frequency_V = (vectors_NV.detach() > 0).float().mean(0)
        return df_flops(over_threshold(vectors_NV, batch.threshold), frequency_V.to(vectors_NV.device))

    return compute


TERMS = tuple(
    term
    for side in SIDES
    for term in (
        Term(f"{side}_flops", ("sparse",), _of_side(side, flops)),
        Term(f"{side}_l1", ("sparse",), _of_side(side, l1)),
        Term(f"{side}_df_flops", ("sparse",), _df_flops(side)),
    )
)
