"""Feature accentuation (Hamblin et al. 2024, arXiv 2402.10039): what in a given image would have to change.

Each sample starts from a real image and climbs strength x score - distance, the distance being that of the encoder's
patch tokens to the seed's, so that the image stays about what it was about. The change is a sum of Fourier waves whose
scale falls as one over the frequency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.ascent import JITTER, Ascent, Shake, Sketch
from engine.samplers.base import OnStep, Samples, Score, sample_generators
from engine.samplers.fourier import to_pixels
from engine.samplers.instruments import AtlasLike
from engine.samplers.optimisation import pink
from engine.samplers.pool import real_images, thumbnails
from engine.samplers.score import TokenEncoder
from engine.vision.spec import EncoderSpec


@dataclass(frozen=True)
class Accentuation:
    """Real images in which the score's concept was brought out."""

    encoder: TokenEncoder
    """Whose features should stay near the seed's."""
    seeds: Tensor
    """[m, 3, H, W] in [0, 1], images to start from; each sample takes one at random, so give one to choose it."""
    steps: int = 200
    """Optimisation steps."""
    strength: float = 1.0
    """How much a unit of score counts against `Accents.penalty`; 0 returns the seed image."""
    rate: float = 0.01
    """Adam's step size, in units of the coefficients."""
    cap: float | None = None
    """A sample whose score, unshaken, exceeds this stays as it is."""
    shake: Shake = JITTER
    """Jitter and scaling."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`."""
        if n < 1:
            raise BlindspotError(f"{n} samples were asked for: ask for at least 1.")
        ascent = Ascent(self.steps, self.rate, self.strength, self.cap, self.shake)
        generators = sample_generators(seed, n)
        chosen = [int(torch.randint(len(self.seeds), (), generator=generator)) for generator in generators]
        return ascent.run(Accents(self.encoder, self.seeds[chosen]), score, generators, on_step)


class Accents(Sketch):
    """Images by what was added to seeds [n, 3, size, size]: Fourier coefficients [n, 3, size, size // 2 + 1, 2]."""

    def __init__(self, encoder: TokenEncoder, seeds: Tensor):
        self.encoder, self.seeds = encoder, seeds
        self.size = seeds.shape[-1]
        self.variables = seeds.new_zeros(len(seeds), 3, self.size, self.size // 2 + 1, 2)
        self.decay = pink(self.size).to(seeds.device)
        with torch.no_grad():
            self.features = torch.cat([encoder(seed).patches for seed in seeds.split(1)])

    def images(self, variables: Tensor, rows: Tensor) -> Tensor:
        """Images [m, 3, size, size], clipped to [0, 1]."""
        change = to_pixels(torch.view_as_complex(variables) * self.decay, self.size)
        return (self.seeds[rows] + change).clamp(0, 1)

    def penalty(self, images: Tensor, rows: Tensor) -> Tensor:
        """Squared distance [m] of the patch tokens to the seed's, as a share of the seed's squared length."""
        features = self.features[rows]
        changed = (self.encoder(images).patches - features).square()
        return changed.flatten(1).sum(dim=1) / features.square().flatten(1).sum(dim=1)


def corpus_seeds(atlas: AtlasLike, spec: EncoderSpec, count: int = 256) -> Tensor:
    """Real images of an atlas to start from, [count or fewer, 3, image_size, image_size], evenly spread over it.

    Raises
    ------
    BlindspotError
        If it has none.
    """
    images = real_images(atlas)
    return thumbnails(atlas, images[np.linspace(0, len(images) - 1, min(len(images), count)).round().astype(int)], spec)
