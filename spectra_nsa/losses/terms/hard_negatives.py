"""Terms that need hard negatives beside each pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.losses.terms.term import Term, TermBatch


def triplet(anchor_BD: Tensor, positive_BD: Tensor, negatives: Sequence[Tensor], margin: float) -> Tensor:
    """Computes max(0, margin − cos(a, p) + cos(a, n)), mean over the given negatives (Schroff et al. 2015)."""
    near_B = (anchor_BD * positive_BD).sum(-1)
    far = torch.stack([(anchor_BD * negative_BD).sum(-1) for negative_BD in negatives])
    return (margin - near_B + far).clamp_min(0).mean()


def ranking(anchor_BD: Tensor, positive_BD: Tensor, negatives: Sequence[Tensor], temperature: float) -> Tensor:
    """Computes InfoNCE of unit vectors: each anchor against all positives and all negatives."""
    candidates_CD = torch.cat([positive_BD, *negatives])
    scores_BC = anchor_BD @ candidates_CD.T / temperature
    return F.cross_entropy(scores_BC, torch.arange(len(anchor_BD), device=scores_BC.device))


def _triplet(batch: TermBatch) -> Tensor:
    anchor_BD, positive_BD, *negatives = batch.units("embedding")
    return triplet(anchor_BD, positive_BD, negatives, batch.margin)


def _ranking(batch: TermBatch) -> Tensor:
    anchor_BD, positive_BD, *negatives = batch.units("ranking")
    return ranking(anchor_BD, positive_BD, negatives, batch.temperature)


TERMS = (
    Term("triplet", ("embedding",), _triplet),
    Term("ranking", ("ranking",), _ranking, head="ranking"),
)
