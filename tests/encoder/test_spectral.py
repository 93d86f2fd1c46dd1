"""Entropy, waves, filter and gate: each against its definition (docs/model.md, sections 2 and 3)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct, dst

from spectra_nsa.encoder import kernels
from spectra_nsa.encoder.context import make_context
from spectra_nsa.encoder.encoder import Encoder
from spectra_nsa.encoder.gates import Gate
from spectra_nsa.encoder.kernels import attention_entropy
from spectra_nsa.encoder.mixers import FractalFilter, SpectralMixer
from spectra_nsa.encoder.spec import EncoderSpec
from spectra_nsa.encoder.waves import POINTS, make_waves
from tests.encoder.test_encoder import SPEC, check_batch_invariance, random_batch

SPECTRAL = dataclasses.replace(SPEC, attention="spectral", spectral_dim=12, spectral_modes=8)
WOKEN = [
    SPECTRAL,
    dataclasses.replace(SPECTRAL, mixer="conv"),
    dataclasses.replace(SPECTRAL, entropy_every=2, depth_mix=True),
    dataclasses.replace(SPECTRAL, norm="pre", position="rope", ffn="geglu", type_vocab_size=0, depth_mix=True),
]


def woken(spec: EncoderSpec) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(spec).eval()
    for module in encoder.modules():
        if isinstance(module, Gate):
            torch.nn.init.normal_(module.weight, std=0.5)
    return encoder


def mask_of(lengths: list[int], width: int, left: bool = False) -> torch.Tensor:
    return random_batch(lengths, width, left)[1].bool()


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize(("block", "long"), [(256, 192), (3, 192), (256, 1)], ids=["whole", "blocks", "fused"])
def test_entropy_is_the_eager_definition_in_float64(
    monkeypatch: pytest.MonkeyPatch, left: bool, block: int, long: int
) -> None:
    monkeypatch.setattr(kernels, "QUERY_BLOCK", block)
    monkeypatch.setattr(kernels, "LONG", long)
    generator = torch.Generator().manual_seed(1)
    lengths = [1, 2, 7, 13]
    mask = mask_of(lengths, 13, left)
    q, k = (4 * torch.randn(4, 3, 13, 8, generator=generator) for _ in range(2))
    found = attention_entropy(q, k, mask)
    scores = (q.double() @ k.double().transpose(-1, -2) / math.sqrt(8)).masked_fill(~mask[:, None, None], -math.inf)
    weights = scores.softmax(-1)
    wanted = -torch.special.xlogy(weights, weights).sum(-1) / torch.tensor(lengths).clamp_min(2).log()[:, None, None]
    real = mask[:, None, :].expand_as(found)
    assert (found.double() - wanted)[real].abs().max() < 1e-5
    assert found.min() >= 0 and found.max() <= 1 and torch.isfinite(found).all()
    assert (found[0, :, mask[0]] == 0).all(), "one token is never undecided"


def test_entropy_is_a_signal_without_gradient_and_uniform_attention_is_one() -> None:
    q = torch.zeros(1, 1, 5, 4, requires_grad=True)
    entropy = attention_entropy(q, torch.randn(1, 1, 5, 4), torch.ones(1, 5, dtype=torch.bool))
    assert not entropy.requires_grad and entropy.allclose(torch.ones(1, 1, 5))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), modes=st.integers(1, 40), before=st.integers(0, 5), after=st.integers(0, 5))
def test_waves_are_the_orthonormal_dct_and_its_sines_over_the_true_length(
    n: int, modes: int, before: int, after: int
) -> None:
    mask = torch.tensor([[False] * before + [True] * n + [False] * after])
    waves = make_waves(mask, modes)
    basis, sines = waves.basis_BNT[0].double().numpy().reshape(2, modes, -1)
    kept = min(n, modes)
    real = basis[:kept, before : before + n]
    wanted = dct(np.eye(n), type=2, norm="ortho", axis=0)[:kept]
    assert np.abs(real - wanted).max() < 1e-5
    real = sines[:kept, before : before + n]
    wanted = dst(np.eye(n), type=2, norm="ortho", axis=0)[: kept - 1]  # of the frequencies 1, 2, …
    assert np.abs(real[1:] - wanted).max(initial=0) < 1e-5 and not real[0].any()
    for rows in (basis, sines):
        assert np.abs(rows[kept:]).max(initial=0) == 0 and not rows[:, ~mask[0].numpy()].any()
    assert torch.allclose(waves.blend_BMP.sum(-1), torch.ones(1, modes))


def test_the_filter_is_self_similar_across_octaves() -> None:
    torch.manual_seed(0)
    fractal = FractalFilter(5)
    torch.nn.init.normal_(fractal.slope)
    torch.nn.init.normal_(fractal.shape)
    torch.nn.init.normal_(fractal.turn)
    waves = make_waves(torch.ones(1, 64, dtype=torch.bool), 33)
    gains, turns = fractal(waves.octave_BM, waves.blend_BMP)[0].reshape(2, 33, 5)
    slopes = fractal.slope.tanh()
    for k in range(1, 17):  # f and f / 2
        assert torch.allclose(gains[k], 2**-slopes * gains[2 * k], atol=1e-5)
        assert torch.allclose(turns[k], 2**-slopes * turns[2 * k], atol=1e-5)
    assert torch.equal(gains[0], fractal.shape[POINTS]), "the constant mode has a gain of its own"
    assert not turns[0].any(), "and no quarter wave"


def test_a_filter_of_ones_is_a_projection() -> None:
    spec = dataclasses.replace(SPECTRAL, spectral_modes=40)
    mixer = SpectralMixer(spec)
    with torch.no_grad():
        mixer.filter.slope.zero_()
        mixer.filter.shape.fill_(1)
        mixer.filter.turn.zero_()
    x = torch.randn(2, 9, 32)
    context = make_context(torch.tensor([[1] * 9, [1] * 4 + [0] * 5]), None, modes=40)
    u = mixer.up(mixer.down(torch.nn.functional.layer_norm(x, (32,))))
    real = context.mask_BT
    assert torch.allclose(mixer(x, context)[real], u[real], atol=1e-5)


def test_turns_tell_left_from_right() -> None:
    torch.manual_seed(0)
    mixer = SpectralMixer(dataclasses.replace(SPECTRAL, spectral_modes=40))
    x = torch.randn(1, 11, 32)
    context = make_context(torch.ones(1, 11, dtype=torch.long), None, modes=40)

    def both_ways() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return mixer(x, context), mixer(x.flip(1), context).flip(1)

    there, back = both_ways()
    assert (there - back).abs().max() > 0.1 * there.abs().max(), "as it starts"
    shape = mixer.filter.shape.data.clone()
    mixer.filter.shape.data.zero_()
    there, back = both_ways()
    torch.testing.assert_close(there, -back, atol=1e-5, rtol=0)  # quarter waves alone are odd
    mixer.filter.shape.data.copy_(shape)
    mixer.filter.turn.data.zero_()
    there, back = both_ways()
    torch.testing.assert_close(there, back, atol=1e-5, rtol=0)  # cosines alone are even


def test_every_channel_starts_with_gain_one_at_an_angle_of_its_own() -> None:
    filtered = FractalFilter(16)
    assert torch.allclose(filtered.shape[:POINTS] ** 2 + filtered.turn**2, torch.ones(POINTS, 16), atol=1e-6)
    angles = torch.atan2(filtered.turn[0], filtered.shape[0]).sort().values
    assert angles.diff().max() < 1, "spread over the circle"


@pytest.mark.parametrize("spec", WOKEN, ids=["spectral", "conv", "every-2+depth", "pre-rope"])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_padding_and_neighbours_change_nothing_when_woken(spec: EncoderSpec, left: bool) -> None:
    check_batch_invariance(woken(spec), left)


@pytest.mark.parametrize("spec", WOKEN, ids=["spectral", "conv", "every-2+depth", "pre-rope"])
def test_checkpointing_gives_the_same_gradients(spec: EncoderSpec) -> None:
    spec = dataclasses.replace(spec, hidden_dropout=0.0, attention_dropout=0.0)
    gradients = []
    for checkpointing in (False, True):
        encoder = woken(spec).train()
        encoder.gradient_checkpointing = checkpointing
        encoder._gradient_checkpointing_func = lambda layer, *a: torch.utils.checkpoint.checkpoint(
            layer, *a, use_reentrant=False
        )
        ids, mask = random_batch([5, 17], 17)
        encoder(ids, mask).states[-1].square().sum().backward()
        gradients.append({name: weight.grad for name, weight in encoder.named_parameters()})
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None)
        if gradient is not None:
            assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@pytest.mark.parametrize("spec", WOKEN[:3], ids=["spectral", "conv", "every-2+depth"])
def test_asleep_it_is_the_plain_encoder_exactly(spec: EncoderSpec) -> None:
    torch.manual_seed(0)
    plain = Encoder(SPEC).eval()
    encoder = Encoder(spec).eval()
    encoder.load_state_dict(plain.state_dict(), strict=False)
    ids, mask = random_batch([5, 17, 1], 17)
    assert torch.equal(encoder(ids, mask).states[-1], plain(ids, mask).states[-1])


def test_asleep_every_gate_gets_gradient() -> None:
    torch.manual_seed(0)
    encoder = Encoder(dataclasses.replace(SPECTRAL, depth_mix=True))
    ids, mask = random_batch([5, 17], 17)
    (encoder(ids, mask).states[-1] * torch.randn(32)).sum().backward()
    gates = [module.weight.grad for module in encoder.modules() if isinstance(module, Gate)]
    assert len(gates) == 3 + 2
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gates)


def test_mixers_are_of_nearly_equal_size() -> None:
    spectral, conv = (
        sum(w.numel() for w in Encoder(dataclasses.replace(SPECTRAL, mixer=mixer)).parameters())
        for mixer in ("spectral", "conv")
    )
    assert spectral - conv == 8 * SPECTRAL.spectral_dim * SPECTRAL.layers


def test_entropy_is_measured_where_it_is_asked_for() -> None:
    ids, mask = random_batch([5], 5)

    def measured(**changes: object) -> list[bool]:
        signals = Encoder(dataclasses.replace(SPEC, **changes)).eval()(ids, mask).signals  # type: ignore[arg-type]
        return [layer.entropy_BHT is not None for layer in signals]

    assert measured() == [False, False, False]
    assert measured(entropy_at_top=True) == [False, False, True]
    assert measured(attention="spectral") == [True, True, True]
    assert measured(attention="spectral", entropy_every=2) == [True, False, True]
