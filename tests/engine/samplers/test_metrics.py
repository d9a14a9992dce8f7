import numpy as np
import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.metrics import diversity, kernel_distance, kid, pair_mean, perceptual_distances, spectral_slope
from engine.vision.encoder import Tokens


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


def test_kid_of_two_shifted_normal_laws_and_its_error_are_what_theory_and_repetition_say():
    """E k of N(a, I) and N(b, I) for the kernel (x.y / d + 1)^3, by the moments of x.y."""
    d, rng = 4, np.random.default_rng(0)
    shift = np.array([0.6, 0.0, 0.3, 0.0])

    def mean_kernel(a, b):
        p, m, n = a @ b, a @ a, b @ b
        third = p**3 + 3 * p * n + 3 * p * (m + d + 2)
        return 1 + 3 * p / d + 3 * (p**2 + m + n + d) / d**2 + third / d**3

    zero = np.zeros(d)
    exact = mean_kernel(zero, zero) + mean_kernel(shift, shift) - 2 * mean_kernel(zero, shift)
    found = [kid(rng.normal(size=(80, d)), rng.normal(size=(60, d)) + shift, unit=False) for _ in range(200)]
    values, errors = (np.array([getattr(one, name) for one in found]) for name in ("value", "error"))
    assert values.mean() == pytest.approx(exact, abs=4 * values.std() / 200**0.5)
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.2)
    assert found[0].n == 60
    assert kid(rng.normal(size=(80, d)), rng.normal(size=(7, d))) is None


def test_the_mean_distance_of_pairs_and_its_jackknife():
    points = np.random.default_rng(0).normal(size=(9, 3))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)

    def mean(chosen):
        return np.mean([distances[i, j] for i in chosen for j in chosen if i != j])

    left_out = [mean([i for i in range(9) if i != gone]) for gone in range(9)]
    found = pair_mean(distances)
    assert found.value == pytest.approx(mean(range(9)))
    assert found.error == pytest.approx(np.sqrt(8 / 9 * np.sum((left_out - np.mean(left_out)) ** 2)))


def test_the_perceptual_distance_compares_places_whatever_the_tokens_length():
    right, up = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    grids = torch.stack([torch.stack([right, right]), torch.stack([2 * right, up]), torch.stack([-right, up])])

    def encoder(images):
        return Tokens(grids[:, None], torch.empty(3, 0, 2))

    assert perceptual_distances(encoder, torch.zeros(3, 3, 2, 2)) == pytest.approx(
        np.array([[0, 1, 3], [1, 0, 2], [3, 2, 0]])
    )
