"""Filters do to every frequency what their formula says, losses are those of the equations, curves show fine detail."""

import math

import numpy as np
import pytest
import torch

from engine.errors import BlindspotError
from engine.invariance.filters import (
    CURVE,
    CUTOFFS,
    Filtered,
    LowPass,
    cutoff_weights,
    dual_loss,
    multi_cutoff_loss,
    parse_low_pass,
    power_spectrum,
    radial_spectrum,
    response_curve,
    spectral_residual,
)
from engine.invariance.levelset import LevelSet, project

FILTERS = [
    LowPass("ideal", 0.5),
    LowPass(),
    LowPass("gaussian", 0.35),
    LowPass("butterworth", 0.3, 2),
    LowPass("butterworth", 0.6, 8),
]


def wave(rows, columns, height=20, width=32):
    """A wave of so many periods down and across, and its frequency in units of Nyquist."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    image = torch.cos(2 * math.pi * (rows * y + columns * x) + 0.3)
    return image.expand(1, 3, -1, -1), 2 * math.hypot(rows / height, columns / width)


def gain(low_pass, r):
    if low_pass.kind == "ideal":
        return float(r <= low_pass.cutoff)
    if low_pass.kind == "gaussian":
        return math.exp(-(r**2) / (2 * low_pass.cutoff**2))
    return 1 / (1 + (r / low_pass.cutoff) ** (2 * low_pass.order))


@pytest.mark.parametrize("low_pass", FILTERS, ids=str)
@pytest.mark.parametrize("periods", [(0, 0), (1, 2), (0, 8), (5, 0), (3, -7), (9, 15)])
def test_a_wave_passes_by_the_gain_of_its_frequency(low_pass, periods):
    image, r = wave(*periods)
    torch.testing.assert_close(low_pass(image), gain(low_pass, r) * image, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("low_pass", FILTERS, ids=str)
@pytest.mark.parametrize("size", [(15, 15), (16, 15), (16, 16)])
def test_filters_are_linear_and_symmetric_and_keep_the_mean(low_pass, size):
    """<F a, b> = <a, F b>, which the gradient needs; for odd and even sizes."""
    a, b = torch.rand(2, 2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close((low_pass(a) * b).sum(), (a * low_pass(b)).sum())
    torch.testing.assert_close(low_pass(a).mean(dim=(2, 3)), a.mean(dim=(2, 3)))
    variable = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((low_pass(variable) * b).sum(), variable)
    torch.testing.assert_close(gradient, low_pass(b))


def respond(images):
    """Two responses: a power of the brightness, and its spread."""
    return torch.stack([images.mean(dim=(1, 2, 3)) ** 2, images.flatten(1).std(dim=1)], dim=1)


def test_the_losses_are_those_of_the_equations(images):
    target = torch.tensor([0.2, 0.1])

    def squared(images):
        return (respond(images) - target).square().sum(dim=1)

    expected = 2 * (squared(images) + squared(LowPass("gaussian", 0.1)(images)))
    torch.testing.assert_close(dual_loss(images, respond, target, scale=2.0), expected)
    for weighting, weight in (("printed", lambda cutoff: cutoff), ("low", lambda cutoff: 1 - cutoff)):
        parts = [weight(cutoff) * squared(LowPass("ideal", cutoff)(images)) for cutoff in CUTOFFS]
        expected = squared(images) + torch.stack(parts).sum(dim=0)
        torch.testing.assert_close(multi_cutoff_loss(images, respond, target, weighting=weighting), expected)
    torch.testing.assert_close(multi_cutoff_loss(images, respond, target), expected)
    residual = spectral_residual(images, respond, target, [LowPass()], [1.0])
    assert residual.shape == (3, 4)
    torch.testing.assert_close(residual[:, :2], respond(images) - target)


def test_a_loss_leads_every_image_on_its_own(images):
    variable = images.clone().requires_grad_()
    losses = multi_cutoff_loss(variable, respond, torch.tensor([0.2, 0.1]))
    (gradient,) = torch.autograd.grad(losses[1], variable)
    assert gradient[1].abs().sum() > 0 and gradient[[0, 2]].abs().sum() == 0


def test_a_set_can_be_held_to_the_response_after_a_filter_too():
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(3, 8, 8, generator=random) / 10
    starts = torch.randn(20, 3, 8, 8, generator=random)

    def respond(images):
        return (torch.tanh(images) * weights).sum(dim=(1, 2, 3))[:, None]

    filters, ones = parse_low_pass("ideal:0.5")
    seen, wanted = Filtered(respond, filters, ones), torch.tensor([0.7])
    held = project(LevelSet(seen, seen.target(wanted)), starts, 1e-5)
    loose = project(LevelSet(respond, wanted), starts, 1e-5)
    assert held.converged.all() and loose.converged.all()
    after = [(respond(filters[0](found.latents)) - wanted).abs() for found in (held, loose)]
    assert after[0].max() < 1e-4 and after[1].mean() > 0.1
    assert [len(parse_low_pass(words)[0]) for words in ("none", "multi", "gaussian:0.1,butterworth:0.3:4")] == [0, 5, 2]
    assert parse_low_pass("multi-printed")[1] == cutoff_weights(CUTOFFS, "printed")


def test_only_the_default_weights_stress_low_frequencies():
    low, printed = cutoff_weights(), cutoff_weights(weighting="printed")
    assert list(low) == sorted(low, reverse=True) and list(printed) == sorted(printed)
    assert sum(low) == pytest.approx(sum(printed))


def test_a_response_to_fine_detail_returns_at_its_own_cutoff():
    stripes, r = wave(0, 9)
    curve = response_curve(stripes, lambda images: images.flatten(1).std(dim=1, keepdim=True))
    assert curve.cutoffs == CURVE and curve.responses.shape == (9, 1, 1)
    lost = curve.deviations()[:, 0]
    assert r == 0.5625
    torch.testing.assert_close(lost, torch.tensor([1.0] * 5 + [0.0] * 4), rtol=0, atol=1e-4)


def test_spectra_have_the_slope_of_their_noise():
    """Noise whose amplitude falls as 1 / f^(a / 2) has power ~ f^-a."""
    generator = torch.Generator().manual_seed(0)
    frequency = torch.hypot(torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)[None]).clamp_min(1 / 64)
    for exponent in (0.0, 1.0, 2.0):
        white = torch.fft.rfft2(torch.randn(6, 1, 64, 64, generator=generator))
        images = torch.fft.irfft2(white * frequency ** (-exponent / 2)).expand(-1, 3, -1, -1)
        spectrum = radial_spectrum(images)
        assert spectrum.power.shape == (6, 32) and spectrum.frequencies[-1] == 1
        inner = slice(2, None)
        fitted = np.polyfit(np.log(spectrum.frequencies[inner]), np.log(spectrum.power.mean(axis=0)[inner]), 1)[0]
        assert -fitted == pytest.approx(exponent, abs=0.2)
        assert spectrum.slope.mean() == pytest.approx(exponent, abs=0.3)


def test_the_power_of_a_wave_lies_at_its_frequency():
    image, _ = wave(3, 5)
    power = power_spectrum(image)[0]
    assert {tuple(place) for place in (power > 1e-3 * power.max()).nonzero().tolist()} == {(13, 21), (7, 11)}
    assert float(power.sum()) == pytest.approx(float(image[0, 0].square().sum()), rel=1e-4)


def test_settings_that_make_no_filter_are_refused():
    for settings in ({"kind": "box"}, {"cutoff": 0.0}, {"cutoff": math.nan}, {"order": 0}):
        with pytest.raises(BlindspotError):
            LowPass(**settings)
    with pytest.raises(BlindspotError, match="between 0 and 1"):
        cutoff_weights([0.5, 1.0])
    with pytest.raises(BlindspotError, match="choose low or printed"):
        cutoff_weights(weighting="high")
    with pytest.raises(BlindspotError, match=r"square images of at least 8 pixels, not \[20, 32\]"):
        radial_spectrum(wave(1, 1)[0])
