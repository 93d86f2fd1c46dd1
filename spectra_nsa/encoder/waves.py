"""Cosines and sines over each text's true length, built once per batch and shared by all layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spectra_nsa.encoder.kinds import POINTS


@dataclass(frozen=True, kw_only=True)
class Waves:
    """Cosines, sines, and their position in the octaves; M is the number of modes, N = 2M.

    Attributes:
        basis_BNT: C[k, t] = α_k cos(π (2t + 1) k / 2n) with orthonormal rows, then S[k, t] = α_k sin(the same); 0 at
            padding and for k ≥ n.
        octave_BM: ω = log2(n / k), octaves below the highest frequency; 0 for k = 0.
        blend_BMP: P = POINTS + 1 weights: periodic linear interpolation between the control points at ω mod 1; the
            last weight is 1 for the constant mode, which has its own gain, and 0 for the others.
    """

    basis_BNT: Tensor
    octave_BM: Tensor
    blend_BMP: Tensor


def make_waves(mask_BT: Tensor, modes: int) -> Waves:
    """Computes the waves of a batch, in fp32.

    Args:
        mask_BT: True at real tokens; t counts only these, so padding on either side changes nothing.
        modes: M, the number of frequencies to keep, lowest first.
    """
    n_B11 = mask_BT.sum(-1).clamp_min(1)[:, None, None]
    t_B1T = (mask_BT.cumsum(-1) - 1)[:, None, :]
    k_1M1 = torch.arange(modes, device=mask_BT.device)[None, :, None]
    # Reduced as an integer: the cosine of a large fp32 argument is inaccurate.
    angle_BMT = ((2 * t_B1T + 1) * k_1M1 % (4 * n_B11)).float() * (math.pi / 2) / n_B11
    norm_BM1 = torch.where(k_1M1 == 0, 1.0, 2.0) / n_B11
    live_BMT = mask_BT[:, None, :] & (k_1M1 < n_B11)
    scale_BMT = norm_BM1.sqrt() * live_BMT
    basis_BNT = torch.cat((angle_BMT.cos() * scale_BMT, angle_BMT.sin() * scale_BMT), dim=1)
    k_1M = k_1M1[..., 0]
    octave_BM = (n_B11[..., 0] / k_1M.clamp_min(1)).log2().clamp_min(0.0) * (k_1M > 0)
    point_BM = octave_BM.frac() * POINTS
    lower_BM = point_BM.long().clamp_max(POINTS - 1)
    share_BM1 = (point_BM - lower_BM)[..., None]
    shape_BMP = (1 - share_BM1) * F.one_hot(lower_BM, POINTS) + share_BM1 * F.one_hot((lower_BM + 1) % POINTS, POINTS)
    varies_M1 = (k_1M > 0).float()[..., None]
    blend_BMP = torch.cat((shape_BMP * varies_M1, (1 - varies_M1).expand(mask_BT.shape[0], -1, -1)), dim=-1)
    return Waves(basis_BNT=basis_BNT, octave_BM=octave_BM, blend_BMP=blend_BMP)
