"""How good drawn images are, beside their score: near the prior's own samples, different from each other, smooth.

The Frechet distance is `engine.blindspots.metrics`'s; here is what needs nothing but one set of images or embeddings.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.fourier import radii, to_coefficients

LUMA = (0.299, 0.587, 0.114)
LOWEST = 1 / 32
"""Lowest frequency of a slope's fit, in cycles per pixel: below, an image is about its layout."""


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """KID, the unbiased squared maximum mean discrepancy with kernel (cos + 1)^3.

    This is the kernel (x.y / d + 1)^3 of Binkowski et al. (2018) for embeddings of length sqrt(d). Unlike the Frechet
    distance it is not biased by few images, so it may be slightly negative.

    Parameters
    ----------
    first, second : [n, d] and [m, d] embeddings of any length, two or more each.

    Raises
    ------
    BlindspotError
        If a set has fewer than two images, or they differ in dimension.
    """
    if first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise BlindspotError(f"KID needs two or more images of both sets, not {first.shape} and {second.shape}.")
    first, second = _unit(first), _unit(second)

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (left @ right.T + 1) ** 3

    return _mean_pair(kernel(first, first)) + _mean_pair(kernel(second, second)) - 2 * kernel(first, second).mean()


def diversity(embeddings: np.ndarray) -> float:
    """Mean cosine distance of the pairs of embeddings [n, d]: 0 when all images are one, about 1 when unrelated.

    Raises
    ------
    BlindspotError
        If there are fewer than two.
    """
    if len(embeddings) < 2:
        raise BlindspotError("Diversity needs two or more images.")
    unit = _unit(embeddings)
    return 1 - _mean_pair(unit @ unit.T)


def spectral_slope(images: Tensor) -> np.ndarray:
    """Exponent a of power ~ frequency^-a for the brightness of each image [n, 3, H, W], [n].

    About 2 for photographs, less for images with too much fine detail, 0 for white noise. The fit is a line through
    log power over log frequency, each octave counting alike, up to 0.5 cycles per pixel; the edge is smoothed by a
    Hann window.
    """
    size = images.shape[-1]
    window = torch.hann_window(size, periodic=False, device=images.device)
    luma = torch.einsum("c,nchw->nhw", images.new_tensor(LUMA), images)
    luma = (luma - luma.mean(dim=(1, 2), keepdim=True)) * window[:, None] * window
    power = to_coefficients(luma).abs().square().cpu().double().numpy()
    frequencies = radii(size).numpy()
    edges = np.geomspace(LOWEST, 0.5, 13)
    rings = np.digitize(frequencies, edges) - 1
    used = [ring for ring in range(len(edges) - 1) if (rings == ring).any()]
    log_frequency = [np.log(frequencies[rings == ring].mean()) for ring in used]
    log_power = np.log(np.stack([power[:, rings == ring].mean(axis=1) for ring in used]) + 1e-12)
    return -np.polyfit(log_frequency, log_power, 1)[0]


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings [n, d] at length 1, float64."""
    embeddings = np.asarray(embeddings, np.float64)
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _mean_pair(products: np.ndarray) -> float:
    """Mean of a square matrix [n, n] off its diagonal."""
    n = len(products)
    return float((products.sum() - np.trace(products)) / (n * (n - 1)))
