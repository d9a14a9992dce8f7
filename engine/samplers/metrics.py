"""How good drawn images are, beside their score: near the prior's own samples, different from each other, smooth.

Distances are taken between the encoder's embeddings of images, of length 1. The Frechet distance, precision and recall
are `engine.blindspots.metrics`'s.
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
FEWEST_KID, MOST_KID = 8, 2000
"""Images of a set from which a KID has an error that can be believed, and those of each that are compared at most."""
KID_SUBSETS = 100
"""Random halves of both sets that a KID's error is taken from."""
LUMA = (0.299, 0.587, 0.114)
LOWEST_FREQUENCY = 1 / 32
"""Of a slope's fit, in cycles per pixel: below, an image is about its layout."""
Distance = Callable[[np.ndarray, np.ndarray], float]
"""Of two sets of embeddings [n, d] and [m, d], such as the Frechet distance of `engine.blindspots.metrics`."""


class Estimate(NamedTuple):
    """A number with its uncertainty."""

    value: float
    error: float
    """Its standard error; NaN where there is none."""
    n: int
    """Images that it rests on."""


class Embeddings(NamedTuple):
    """What an encoder says of whole images, float64."""

    image: Float[np.ndarray, "n dim"]
    """Class tokens of length 1; mean patches where the encoder has no class token."""
    patches: Float[np.ndarray, "n dim"]
    """Mean patch tokens of length 1: where concepts live."""


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
def embeddings(encoder: Encoder, images: Float[Tensor, "n 3 height width"]) -> Embeddings:
    """Embed images in [0, 1] of any size."""
    found = [encoder(part) for part in images.split(EMBEDDING_BATCH)]
    means = torch.cat([tokens.patches.mean(dim=(1, 2)) for tokens in found])
    whole = torch.cat([tokens.embedding() for tokens in found])
    return Embeddings(whole.cpu().double().numpy(), _unit(means.cpu().numpy()))


def embed(encoder: Encoder, images: Float[Tensor, "n 3 height width"]) -> Float[np.ndarray, "n dim"]:
    """`embeddings` by the class token."""
    return embeddings(encoder, images).image


def kernel_distance(first: np.ndarray, second: np.ndarray, unit: bool = True) -> float:
    """KID, the unbiased squared maximum mean discrepancy with kernel (x.y / d + 1)^3 of Binkowski et al. (2018).

    Unlike the Frechet distance it is not biased by few images, so it may be slightly negative.

    Parameters
    ----------
    first, second
        [n, d] and [m, d] embeddings, two or more each.
    unit
        Whether x.y / d is the cosine, as for embeddings of length sqrt(d), whatever their length is.

    Raises
    ------
    BlindspotError
        If a set has fewer than two images, or they differ in dimension.
    """
    within, other, between = _kernels(first, second, unit)
    return _mean_pair(within) + _mean_pair(other) - 2 * between.mean()


def kid(first: np.ndarray, second: np.ndarray, unit: bool = True, seed: int = 0) -> Estimate | None:
    """`kernel_distance` with its standard error over subsets; None for fewer than `FEWEST_KID` images of a set.

    The error is the standard deviation over random halves of both sets, which is that of the whole sets (the delete-d
    jackknife of Shao and Wu, 1989, at d = n / 2): subsets of n / 2 vary twice as much in variance, and overlap by half.

    Parameters
    ----------
    first, second, unit
        As for `kernel_distance`; of more than `MOST_KID` rows as many, evenly spread, are used.
    seed
        Of the halves.
    """
    if min(len(first), len(second)) < FEWEST_KID:
        return None
    first, second = (side[_spread(len(side), MOST_KID)] for side in (first, second))
    within, other, between = _kernels(first, second, unit)
    generator = np.random.default_rng(seed)
    rows, columns = (_halves(len(side), generator) for side in (first, second))
    halves = _half_pairs(within, rows) + _half_pairs(other, columns)
    halves -= 2 * ((rows @ between) * columns).sum(axis=1) / (rows.sum(axis=1) * columns.sum(axis=1))
    value = _mean_pair(within) + _mean_pair(other) - 2 * between.mean()
    return Estimate(value, float(halves.std(ddof=1)), len(second))


@torch.no_grad()
def perceptual_distances(encoder: Encoder, images: Float[Tensor, "n 3 height width"]) -> Float[np.ndarray, "n n"]:
    """How different images look place by place: mean over patches of |a / |a| - b / |b||^2, a and b their tokens.

    This is LPIPS (Zhang et al., 2018) with the encoder's layer as the only one, and equal weights instead of learned
    ones. From 0 to 4.
    """
    tokens = torch.cat([encoder(part).patches for part in images.split(EMBEDDING_BATCH)]).flatten(1, 2)
    unit = torch.nn.functional.normalize(tokens.cpu().double(), dim=-1).flatten(1)
    return (2 - 2 * (unit @ unit.T) / tokens.shape[1]).clamp_min(0).numpy()


def pair_mean(distances: Float[np.ndarray, "n n"]) -> Estimate:
    """Mean distance of the pairs of two or more images, with the delete-one jackknife's standard error."""
    n = len(distances)
    if n < 2:
        raise BlindspotError("The distance of pairs needs two or more images.")
    value, error = _mean_pair(distances), math.nan
    if n > 2:
        off_diagonal = distances.sum() - np.trace(distances)
        left = off_diagonal - 2 * (distances.sum(axis=1) - np.diagonal(distances))
        error = math.sqrt((n - 1) ** 2 / n) * float((left / ((n - 1) * (n - 2))).std(ddof=1))
    return Estimate(value, error, n)


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


def _kernels(first: np.ndarray, second: np.ndarray, unit: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels [n, n], [m, m] and [n, m]; errors as for `kernel_distance`."""
    if first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise BlindspotError(f"KID needs two or more images of both sets, not {first.shape} and {second.shape}.")
    scale = 1 if unit else first.shape[1]
    first, second = (_unit(side) if unit else np.asarray(side, np.float64) for side in (first, second))

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (left @ right.T / scale + 1) ** 3

    return kernel(first, first), kernel(second, second), kernel(first, second)


def _halves(n: int, generator: np.random.Generator) -> np.ndarray:
    """Random halves of n rows, float64 [KID_SUBSETS, n] of 0 and 1."""
    chosen = np.zeros((KID_SUBSETS, n))
    chosen[:, : n // 2] = 1
    return generator.permuted(chosen, axis=1)


def _half_pairs(kernel: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`_mean_pair` of each subset's part of a kernel [n, n]."""
    sizes = chosen.sum(axis=1)
    return (((chosen @ kernel) * chosen).sum(axis=1) - chosen @ np.diagonal(kernel)) / (sizes * (sizes - 1))


def _spread(n: int, most: int) -> np.ndarray:
    """All positions of n, or `most` of them, evenly spread."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).round().astype(int)


def _mean_pair(products: np.ndarray) -> float:
    """Mean of a square matrix [n, n] off its diagonal."""
    n = len(products)
    return float((products.sum() - np.trace(products)) / (n * (n - 1)))
