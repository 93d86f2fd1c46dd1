"""Terms of the shape of the embedding space, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.losses.terms.term import Term


def matryoshka_angular(semantic_ND: Tensor, sizes: Sequence[int]) -> Tensor:
    """Computes the mean squared difference of the cosines at each prefix from those at full size.

    The cosines at full size get no gradient.
    """
    full_NN = (semantic_ND @ semantic_ND.T).detach()
    losses = []
    for size in sizes[1:]:
        prefix_ND = F.normalize(semantic_ND[:, :size], dim=-1)
        losses.append((prefix_ND @ prefix_ND.T - full_NN).square().mean())
    return torch.stack(losses).mean() if losses else semantic_ND.sum() * 0.0


def spectral(anchor_BD: Tensor) -> Tensor:
    """Computes the log of the mean squared cosine over distinct, unpaired texts.

    It is the negative Rényi-2 entropy of the embedding spectrum, up to a constant.
    """
    others_BB = ~torch.eye(len(anchor_BD), dtype=torch.bool, device=anchor_BD.device)
    return ((anchor_BD @ anchor_BD.T)[others_BB].square().mean() + 1e-8).log()


TERMS = (
    Term(
        "matryoshka_angular",
        ("embedding",),
        lambda batch: matryoshka_angular(batch.unit_texts("embedding"), batch.sizes),
    ),
    Term("spectral", ("embedding",), lambda batch: spectral(batch.units("embedding")[0])),
)
