"""What a drawing is measured by, beside its score: its spread and smoothness, and how far it is from the prior's own.

All distances are taken between the encoder's image embeddings, of length 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.base import OnStep
from engine.samplers.instruments import Instruments
from engine.samplers.quality import diversity, kernel_distance, spectral_slope
from engine.samplers.registry import Settings, create
from engine.samplers.tasks import ImageEncoder

BATCH = 16
"""Samples of the prior drawn at once."""
EMBEDDED = 64
"""Images embedded at once."""
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
class Yardstick:
    """Samples of the prior alone, to compare drawings with."""

    encoder: ImageEncoder
    """Whose embeddings are compared."""
    own: np.ndarray
    """[m, d], embeddings of the prior's samples."""
    frechet: Distance | None = None
    """The Frechet distance."""

    def measure(self, images: Tensor) -> Quality:
        """Measure images [n, 3, H, W], two or more."""
        seen = embeddings(self.encoder, images)
        return Quality(
            float(diversity(seen)),
            float(spectral_slope(images).mean()),
            float(kernel_distance(self.own, seen)),
            self.frechet(self.own, seen) if self.frechet else math.nan,
        )


def prior_yardstick(
    models: Instruments,
    steps: int,
    n: int,
    seed: int = 0,
    frechet: Distance | None = None,
    on_step: OnStep | None = None,
) -> Yardstick:
    """Draw n images from the prior alone, with other noise than the drawings of this seed.

    Raises
    ------
    BlindspotError
        If n is less than two, or the prior cannot be had.
    Cancelled
        If `on_step` said so.
    """
    if n < 2:
        raise BlindspotError(f"The prior needs two or more samples to be compared with, not {n}.")
    own = prior_images(models, steps, n, seed + 1, on_step)
    return Yardstick(models.encoder, embeddings(models.encoder, own), frechet)


def prior_images(models: Instruments, steps: int, n: int, seed: int = 0, on_step: OnStep | None = None) -> Tensor:
    """Samples [n, 3, H, W] of an atlas's prior alone, drawn in batches of `BATCH`; errors as in `Sampler.sample`."""
    sampler = create("prior", models, Settings(steps, 0.0))
    parts = [
        sampler.sample(_nothing, min(BATCH, n - start), seed + start, on_step).images for start in range(0, n, BATCH)
    ]
    return torch.cat(parts)


@torch.no_grad()
def embeddings(encoder: ImageEncoder, images: Tensor) -> np.ndarray:
    """Embeddings [n, d] of images [n, 3, H, W], of length 1."""
    return torch.cat([encoder(part).embedding() for part in images.split(EMBEDDED)]).cpu().double().numpy()


def _nothing(images: Tensor) -> Tensor:
    """A score [n] that likes nothing better."""
    return images.new_zeros(len(images))
