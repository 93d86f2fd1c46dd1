"""What mixes tokens beside attention. Every kind maps (B, T, D) to (B, T, D) and needs about the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spectra_nsa.encoder.context import BatchContext
from spectra_nsa.encoder.gates import Starts
from spectra_nsa.encoder.spec import EncoderSpec
from spectra_nsa.encoder.waves import POINTS

STEEPEST = 0.95  # the largest |β| at the start; tanh never reaches 1


class FractalFilter(Starts):
    """A gain per frequency and channel that is self-similar across octaves (docs/model.md, section 2).

    g(f) = 2^(−β ω) φ(ω mod 1) at ω = log2(0.5 / f), so that g(f / 2) = 2^(−β) g(f); φ is one learned octave.

    Args:
        channels: s.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.empty(channels))
        self.shape = nn.Parameter(torch.empty(POINTS + 1, channels))  # the last row: gain of the constant mode
        self.start()

    def initial(self) -> dict[str, Tensor]:
        """β spread evenly over (−1, 1), φ = 1: every channel starts as another colour of noise."""
        slopes = torch.linspace(-STEEPEST, STEEPEST, len(self.slope)).atanh()
        return {"slope": slopes, "shape": torch.ones(self.shape.shape)}

    def forward(self, octave_BM: Tensor, blend_BMP: Tensor) -> Tensor:
        """Gains (B, M, s), in fp32."""
        with torch.autocast(octave_BM.device.type, enabled=False):
            fall_BMs = torch.exp2(-octave_BM[..., None] * self.slope.float().tanh())
            return fall_BMs * (blend_BMP @ self.shape.float())


class SpectralMixer(nn.Module):
    """y = Cᵀ (g ⊙ C u) W_up with u = norm(x) W_down: a filter over each text's true length."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.down = nn.Linear(spec.hidden_size, spec.spectral_dim, bias=False)
        self.filter = FractalFilter(spec.spectral_dim)
        self.up = nn.Linear(spec.spectral_dim, spec.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, context: BatchContext) -> Tensor:
        waves = context.waves
        assert waves is not None
        u_BTs = self.down(F.layer_norm(x_BTD, x_BTD.shape[-1:]))
        basis_BMT = waves.basis_BMT.to(u_BTs.dtype)
        modes_BMs = torch.matmul(basis_BMT, u_BTs)
        modes_BMs = (modes_BMs * self.filter(waves.octave_BM, waves.blend_BMP)).to(u_BTs.dtype)
        return self.up(torch.matmul(basis_BMT.transpose(1, 2), modes_BMs))


class DepthwiseConv(nn.Conv1d, Starts):
    """A convolution within each channel, about as strong at the start as its input.

    Args:
        channels: s.
    """

    WIDTH = POINTS + 1  # with the bias as many numbers a channel as the filter has

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, self.WIDTH, padding=self.WIDTH // 2, groups=channels)

    def initial(self) -> dict[str, Tensor]:
        return {"weight": torch.randn(self.weight.shape) / math.sqrt(self.WIDTH)}


class ConvMixer(nn.Module):
    """A depthwise convolution in the filter's place: the ablation of equal size.

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
        u_BTs = u_BTs * context.mask_BT[..., None]  # a text ends in silence, whatever stands in its padding
        return self.up(self.conv(u_BTs.transpose(1, 2)).transpose(1, 2))


MIXERS: dict[str, Callable[[EncoderSpec], nn.Module]] = {"spectral": SpectralMixer, "conv": ConvMixer}
