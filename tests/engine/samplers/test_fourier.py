import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.feature_visualization import corpus_spectrum
from engine.samplers.fourier import mean_spectrum, odd_phases, radii, to_coefficients, to_pixels
from engine.samplers.models import ModelBundle


@pytest.mark.parametrize("size", [7, 8])
def test_pixels_and_coefficients_are_inverse_and_of_one_scale(size):
    pixels = torch.randn(2, 3, size, size)
    coefficients = to_coefficients(pixels)
    torch.testing.assert_close(to_pixels(coefficients, size), pixels)
    whole = torch.fft.fft2(pixels, norm="ortho").abs().square().sum()
    torch.testing.assert_close(whole, pixels.square().sum())


def test_radii_are_cycles_per_pixel():
    assert radii(8)[0, 0] == 0 and radii(8)[0, 4] == 0.5 and radii(8)[4, 4] == pytest.approx(0.5**0.5)
    assert radii(8)[3, 4] == radii(8)[5, 4] == pytest.approx((0.375**2 + 0.25) ** 0.5)


@pytest.mark.parametrize("size", [7, 8])
def test_with_odd_phases_an_image_has_the_magnitudes_it_was_given(size):
    magnitudes = torch.rand(size, size // 2 + 1)
    magnitudes = (magnitudes + magnitudes.flip(0).roll(1, 0)) / 2
    pixels = to_pixels(torch.polar(magnitudes, odd_phases(6 * torch.rand(magnitudes.shape), size)), size)
    torch.testing.assert_close(to_coefficients(pixels).abs(), magnitudes, atol=1e-6, rtol=1e-5)


def test_phases_of_a_real_image_are_odd_already():
    phases = to_coefficients(torch.randn(3, 8, 8)).angle()
    odd = odd_phases(phases, 8)
    torch.testing.assert_close(torch.polar(torch.ones(3, 8, 5), odd).imag, phases.sin(), atol=1e-5, rtol=0)


def test_a_corpus_s_channels_are_uncorrelated_and_of_unit_variance():
    mixing = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.1, 0.05], [0.1, 0.0, 0.1]])
    images = torch.einsum("cd,ndhw->nchw", mixing, torch.randn(20, 3, 16, 16)) + 0.4
    spectrum = mean_spectrum([images[:15], images[15:]])
    channels = spectrum.channels(images)
    torch.testing.assert_close(torch.cov(channels.transpose(0, 1).flatten(1)), torch.eye(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(spectrum.pixels(channels), images, atol=1e-5, rtol=1e-5)
    assert spectrum.mean.tolist() == pytest.approx(images.mean(dim=(0, 2, 3)).tolist())
    expected = to_coefficients(channels).abs().mean(dim=0)
    torch.testing.assert_close(spectrum.magnitudes[:, 1:], expected[:, 1:], atol=1e-4, rtol=1e-3)
    assert spectrum.magnitudes[:, 0, 0].tolist() == [0, 0, 0] and spectrum.size == 16


def test_an_atlas_s_spectrum_is_kept_and_has_the_encoder_s_size(atlas):
    spec = ModelBundle(atlas, "cpu").encoder.spec
    spectrum = corpus_spectrum(atlas, spec)
    assert spectrum.size == 32 and corpus_spectrum(atlas, spec) is spectrum


def test_an_atlas_without_real_images_is_one_sentence(atlas):
    class Empty:
        info = atlas.info
        images = atlas.images.iloc[:0]

    with pytest.raises(BlindspotError, match="'synthetic' holds no real images: choose a method that draws"):
        corpus_spectrum(Empty(), ModelBundle(atlas, "cpu").encoder.spec)
