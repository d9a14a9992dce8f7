import numpy as np
import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.metrics import diversity, kernel_distance, spectral_slope


def test_the_kernel_distance_is_its_definition():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1

    def kernel(x, y):
        return (x @ y / np.linalg.norm(x) / np.linalg.norm(y) + 1) ** 3

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(side) for j, y in enumerate(side) if i != j])
        for side in (first, second)
    ]
    between = np.mean([kernel(x, y) for x in first for y in second])
    assert kernel_distance(first, second) == pytest.approx(sum(within) - 2 * between)


def test_the_kernel_distance_of_one_law_is_zero_on_average():
    rng = np.random.default_rng(1)
    values = [kernel_distance(rng.normal(size=(12, 4)), rng.normal(size=(12, 4))) for _ in range(300)]
    assert np.mean(values) == pytest.approx(0, abs=4 * np.std(values) / 300**0.5)


def test_diversity_of_known_sets():
    assert diversity(np.ones((4, 3))) == pytest.approx(0)
    assert diversity(5 * np.eye(6)) == pytest.approx(1)
    assert diversity(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(2)


def test_too_few_images_are_refused():
    with pytest.raises(BlindspotError, match="two or more images"):
        diversity(np.ones((1, 3)))
    with pytest.raises(BlindspotError, match=r"KID needs two or more images of both sets, not \(1, 3\)"):
        kernel_distance(np.ones((1, 3)), np.ones((4, 3)))
    with pytest.raises(BlindspotError, match="KID"):
        kernel_distance(np.ones((4, 2)), np.ones((4, 3)))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_the_slope_of_noise_with_a_known_spectrum(exponent):
    noise = torch.fft.rfft2(torch.randn(60, 128, 128, generator=torch.Generator().manual_seed(0)))
    radius = torch.hypot(torch.fft.fftfreq(128)[:, None], torch.fft.rfftfreq(128)[None]).clamp_min(1 / 128)
    images = torch.fft.irfft2(noise / radius ** (exponent / 2))[:, None].expand(-1, 3, -1, -1)
    assert spectral_slope(images).mean() == pytest.approx(exponent, abs=0.1)
