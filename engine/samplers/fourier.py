"""Images as Fourier coefficients: frequencies, and what a corpus of images has in common there.

Coefficients are those of `rfft2` with norm "ortho", so that they have the scale of the pixels. A real image's
coefficients are conjugate under k -> -k; in the two columns that `rfft2` keeps whole, the first and (for an even width)
the last, that is a constraint between rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.samplers.instruments import AtlasLike
from engine.samplers.pool import real_images, thumbnails
from engine.vision.spec import EncoderSpec

CORPUS = 2000
"""Images that a mean spectrum is taken over, at most."""
BATCH = 100


def radii(size: int) -> Tensor:
    """Spatial frequencies [size, size // 2 + 1] in cycles per pixel, 0 to 0.71."""
    return torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])


def to_pixels(coefficients: Tensor, size: int) -> Tensor:
    """Complex coefficients [..., size, size // 2 + 1] to pixels [..., size, size]."""
    return torch.fft.irfft2(coefficients, s=(size, size), norm="ortho")


def to_coefficients(pixels: Tensor) -> Tensor:
    """Pixels [..., size, size] to complex coefficients [..., size, size // 2 + 1]."""
    return torch.fft.rfft2(pixels, norm="ortho")


def odd_phases(phases: Tensor, size: int) -> Tensor:
    """Phases [..., size, size // 2 + 1], made odd under k -> -k in the columns where a real image's are.

    Only then does `to_pixels` keep the magnitudes as they are.
    """
    whole = [0] if size % 2 else [0, size // 2]
    mirrored = phases[..., whole].flip(-2).roll(1, dims=-2)
    odd = phases.clone()
    odd[..., whole] = (phases[..., whole] - mirrored) / 2
    return odd


class Spectrum(NamedTuple):
    """What the images of a corpus share: mean colour, colours that vary independently, and how much at each frequency.

    A pixel is mean + colours y, with y of uncorrelated channels.
    """

    mean: Tensor
    """[3], mean colour."""
    colours: Tensor
    """[3, 3], columns: directions in colour space, scaled to their standard deviation."""
    magnitudes: Tensor
    """[3, size, size // 2 + 1], mean magnitude of the coefficients of each channel of y; 0 for its mean."""

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.magnitudes.shape[-2]

    def channels(self, images: Tensor) -> Tensor:
        """Images [n, 3, H, W] to uncorrelated channels y [n, 3, H, W]."""
        return torch.einsum("dc,nchw->ndhw", torch.linalg.inv(self.colours), images - self.mean[:, None, None])

    def pixels(self, channels: Tensor) -> Tensor:
        """Uncorrelated channels y [n, 3, H, W] to images [n, 3, H, W], not clipped."""
        return torch.einsum("cd,ndhw->nchw", self.colours, channels) + self.mean[:, None, None]

    def to(self, device: str | torch.device) -> Spectrum:
        """The same on another device."""
        return Spectrum(*(part.to(device) for part in self))


def mean_spectrum(batches: list[Tensor]) -> Spectrum:
    """The spectrum of images given in batches [n, 3, size, size] in [0, 1]."""
    pixels = torch.cat([images.double().transpose(0, 1).flatten(1) for images in batches], dim=1)
    mean = pixels.mean(dim=1)
    values, directions = torch.linalg.eigh(torch.cov(pixels))
    colours = directions * values.clamp_min(1e-6).sqrt()
    size = batches[0].shape[-1]
    partial = Spectrum(mean, colours, torch.zeros(3, size, size // 2 + 1))
    sums = sum(to_coefficients(partial.channels(images.double())).abs().sum(dim=0) for images in batches)
    magnitudes = sums / sum(map(len, batches))
    magnitudes[:, 0, 0] = 0
    return Spectrum(mean.float(), colours.float(), magnitudes.float())


@lru_cache(maxsize=2)
def corpus_spectrum(atlas: AtlasLike, spec: EncoderSpec) -> Spectrum:
    """The spectrum of an atlas's real images, at the encoder's size; kept for the next drawing.

    Raises
    ------
    BlindspotError
        If the atlas has no real images.
    """
    images = real_images(atlas)
    chosen = images[np.linspace(0, len(images) - 1, min(len(images), CORPUS)).round().astype(int)]
    return mean_spectrum([thumbnails(atlas, part, spec) for part in np.split(chosen, range(BATCH, len(chosen), BATCH))])
