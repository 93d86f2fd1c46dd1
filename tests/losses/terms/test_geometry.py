"""The terms of geometry against their definitions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from spectra_nsa.losses.terms import geometry
from tests.losses.terms.vectors import unit


def test_matryoshka_angular_is_zero_where_prefixes_agree() -> None:
    z = unit(6, 16)
    agreeing = F.normalize(torch.cat([z, torch.zeros_like(z)], dim=1), dim=-1)
    assert geometry.matryoshka_angular(agreeing, [32, 16]) < 1e-12 < geometry.matryoshka_angular(z, [16, 4])


def test_spectral_is_the_log_of_the_mean_squared_cosine_of_distinct_texts() -> None:
    z = unit(5, 8)
    cosines = [float(z[i] @ z[j]) for i in range(5) for j in range(5) if i != j]
    wanted = torch.tensor([c * c for c in cosines]).mean().log()
    assert torch.allclose(geometry.spectral(z), wanted, atol=1e-5)
