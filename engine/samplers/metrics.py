"""How good drawn images are, beside their score: near the prior's own samples, different from each other, smooth.

All distances are taken between the encoder's image embeddings, of length 1. The Frechet distance is
`engine.blindspots.metrics`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.base import OnStep
from engine.samplers.fourier import radii, to_coefficients
from engine.samplers.models import ModelBundle
from engine.samplers.registry import SamplerSettings, create
from engine.vision.encoder import Encoder

PRIOR_BATCH, EMBEDDING_BATCH = 16, 64
"""Samples of the prior drawn at once, images embedded at once."""
LUMA = (0.299, 0.587, 0.114)
LOWEST_FREQUENCY = 1 / 32
"""Of a slope's fit, in cycles per pixel: below, an image is about its layout."""
Distance = Callable[[np.ndarray, np.ndarray], float]
"""Of two sets of embeddings [n, d] and [m, d], such as the Frechet distance of `engine.blindspots.metrics`."""


class Quality(NamedTuple):
    """What one batch of images is like."""

    diversity: float
    """Mean cosine distance of its pairs."""
    slope: float
    """Mean exponent of its power spectra, see `spectral_slope`."""
    kid: float
    """To the prior's own samples, see `kernel_distance`."""
    frechet: float
    """To the prior's own samples; NaN where no such distance was given. It is biased upwards by few images: compare
    only batches of equal size."""


@dataclass(frozen=True)
class PriorReference:
    """Samples of the prior alone, to compare drawings with."""

    encoder: Encoder
    """Whose embeddings are compared."""
    embeddings: np.ndarray
    """[m, d], of the prior's samples."""
    frechet: Distance | None = None
    """The Frechet distance."""

    @classmethod
    def sample(
        cls,
        models: ModelBundle,
        steps: int,
        n: int,
        seed: int = 0,
        frechet: Distance | None = None,
        on_step: OnStep | None = None,
    ) -> PriorReference:
        """Draw n images from the prior alone, with other noise than the drawings of this seed.

        Raises
        ------
        BlindspotError
            If n is less than two, or the prior cannot be loaded.
        Cancelled
            If `on_step` returned False.
        """
        if n < 2:
            raise BlindspotError(f"The prior needs two or more samples to be compared with, not {n}.")
        own = prior_images(models, steps, n, seed + 1, on_step)
        return cls(models.encoder, embed(models.encoder, own), frechet)

    def measure(self, images: Float[Tensor, "n 3 height width"]) -> Quality:
        """Measure two or more images."""
        embeddings = embed(self.encoder, images)
        return Quality(
            float(diversity(embeddings)),
            float(spectral_slope(images).mean()),
            float(kernel_distance(self.embeddings, embeddings)),
            self.frechet(self.embeddings, embeddings) if self.frechet else math.nan,
        )


def prior_images(
    models: ModelBundle, steps: int, n: int, seed: int = 0, on_step: OnStep | None = None
) -> Float[Tensor, "n 3 height width"]:
    """Draw samples of an atlas's prior alone, in batches of `PRIOR_BATCH`; errors as in `Sampler.sample`."""
    sampler = create("prior", models, SamplerSettings(steps=steps, strength=0.0))
    parts = []
    for start in range(0, n, PRIOR_BATCH):
        count = min(PRIOR_BATCH, n - start)
        parts.append(sampler.sample(lambda images: images.new_zeros(len(images)), count, seed + start, on_step).images)
    return torch.cat(parts)


@torch.no_grad()
def embed(encoder: Encoder, images: Float[Tensor, "n 3 height width"]) -> np.ndarray:
    """Embeddings [n, d] of images, of length 1."""
    return torch.cat([encoder(part).embedding() for part in images.split(EMBEDDING_BATCH)]).cpu().double().numpy()


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """KID, the unbiased squared maximum mean discrepancy with kernel (cos + 1)^3.

    This is the kernel (x.y / d + 1)^3 of Binkowski et al. (2018) for embeddings of length sqrt(d). Unlike the Frechet
    distance it is not biased by few images, so it may be slightly negative.

    Parameters
    ----------
    first, second
        [n, d] and [m, d] embeddings of any length, two or more each.

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


def spectral_slope(images: Float[Tensor, "n 3 height width"]) -> np.ndarray:
    """Exponent a [n] of power ~ frequency^-a for the brightness of each image.

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
    edges = np.geomspace(LOWEST_FREQUENCY, 0.5, 13)
    rings = np.digitize(frequencies, edges) - 1
    used = [ring for ring in range(len(edges) - 1) if (rings == ring).any()]
    log_frequency = [np.log(frequencies[rings == ring].mean()) for ring in used]
    log_power = np.log(np.stack([power[:, rings == ring].mean(axis=1) for ring in used]) + 1e-12)
    return -np.polyfit(log_frequency, log_power, 1)[0]


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings [n, d] at length 1, float64; those of length 0 stay."""
    embeddings = np.asarray(embeddings, np.float64)
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def _mean_pair(products: np.ndarray) -> float:
    """Mean of a square matrix [n, n] off its diagonal."""
    n = len(products)
    return float((products.sum() - np.trace(products)) / (n * (n - 1)))
