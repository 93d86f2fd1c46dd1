"""Token mixers beside attention. Every kind maps (B, T, D) to (B, T, D), with about the same number of weights."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext
from spectra_nsa.encoder.gates import SelfInitialized
from spectra_nsa.encoder.kinds import CONV_WIDTH, POINTS
from spectra_nsa.encoder.spec import EncoderSpec

STEEPEST = 0.95  # largest initial |β|; tanh never reaches 1
GOLDEN = math.pi * (math.sqrt(5) - 1)  # the golden angle: neighbouring channels start far apart in phase


class FractalFilter(SelfInitialized):
    """In-phase and quadrature gain per frequency and channel, self-similar across octaves (docs/model.md, section 2).

    g(f) = 2^(−β ω) φ(ω mod 1) and h(f) = 2^(−β ω) ψ(ω mod 1) at ω = log2(0.5 / f): both fall by 2^(−β) per
    octave; φ and ψ are one learned octave each. g is a channel's gain in phase, h its gain a quarter wave later.

    Args:
        channels: s.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.empty(channels))
        self.shape = nn.Parameter(torch.empty(POINTS + 1, channels))  # φ; the last row: gain of the constant mode
        self.turn = nn.Parameter(torch.empty(POINTS, channels))  # ψ; a constant has no quarter wave
        self.initialize()

    def initial_values(self) -> dict[str, Tensor]:
        """Spreads β evenly over (−1, 1), so each channel has a noise color of its own; φ² + ψ² = 1 at every angle."""
        slopes = torch.linspace(-STEEPEST, STEEPEST, len(self.slope)).atanh()
        angles = torch.arange(len(self.slope)) * GOLDEN
        return {
            "slope": slopes,
            "shape": angles.cos().expand(self.shape.shape),
            "turn": angles.sin().expand(self.turn.shape),
        }

    def forward(self, octave_BM: Tensor, blend_BMP: Tensor) -> Tensor:
        """Returns (B, 2M, s) in fp32: g of all modes, then h of all modes."""
        with torch.autocast(octave_BM.device.type, enabled=False):
            fall_BMs = torch.exp2(-octave_BM[..., None] * self.slope.float().tanh())
            shapes_BMs = blend_BMP @ self.shape.float(), blend_BMP[..., :POINTS] @ self.turn.float()
            return torch.cat([fall_BMs * shape_BMs for shape_BMs in shapes_BMs], dim=1)


class SpectralMixer(nn.Module):
    """y = (Cᵀ (g ⊙ C u) + Sᵀ (h ⊙ C u)) W_up with u = norm(x) W_down: a filter over each text's true length.

    C are cosines and S the sines of the same frequencies. With cosines alone the filter could only smooth and sharpen:
    it could not tell a token's left neighbors from its right ones.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.down = nn.Linear(spec.hidden_size, spec.spectral_dim, bias=False)
        self.filter = FractalFilter(spec.spectral_dim)
        self.up = nn.Linear(spec.spectral_dim, spec.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, context: BatchContext) -> Tensor:
        waves = context.waves
        assert waves is not None
        u_BTs = self.down(F.layer_norm(x_BTD, x_BTD.shape[-1:]))
        basis_BNT = waves.basis_BNT.to(u_BTs.dtype)  # N = 2M: cosines, then sines
        modes_BMs = torch.matmul(basis_BNT[:, : basis_BNT.shape[1] // 2], u_BTs)
        turned_BNs = (modes_BMs.repeat(1, 2, 1) * self.filter(waves.octave_BM, waves.blend_BMP)).to(u_BTs.dtype)
        return self.up(torch.matmul(basis_BNT.transpose(1, 2), turned_BNs))


class DepthwiseConv(nn.Conv1d, SelfInitialized):
    """A convolution within each channel; its initial output is about as large as its input.

    Args:
        channels: s.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, CONV_WIDTH, padding=CONV_WIDTH // 2, groups=channels)

    def initial_values(self) -> dict[str, Tensor]:
        return {"weight": torch.randn(self.weight.shape) / math.sqrt(CONV_WIDTH)}


class ConvMixer(nn.Module):
    """A depthwise convolution instead of the filter: the same projections, and 10 numbers per channel instead of 18.

    Args:
        spec: `hidden_size` and `spectral_dim` are read.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.down = nn.Linear(spec.hidden_size, spec.spectral_dim, bias=False)
        self.conv = DepthwiseConv(spec.spectral_dim)
        self.up = nn.Linear(spec.spectral_dim, spec.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, context: BatchContext) -> Tensor:
        u_BTs = self.down(F.layer_norm(x_BTD, x_BTD.shape[-1:]))
        u_BTs = u_BTs * context.mask_BT[..., None]  # padding counts as zeros, whatever its states are
        return self.up(self.conv(u_BTs.transpose(1, 2)).transpose(1, 2))
