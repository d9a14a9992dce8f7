"""Images as Fourier coefficients: frequencies, and what a corpus of images has in common there.

Coefficients are those of `rfft2` with norm "ortho", so that they have the scale of the pixels. A real image's
coefficients are conjugate under k -> -k; in the two columns that `rfft2` keeps whole, the first and (for an even width)
the last, that is a constraint between rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def radii(size: int) -> Float[Tensor, "size half"]:
    """Spatial frequencies in cycles per pixel, 0 to 0.71; half = size // 2 + 1."""
    return torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])


def pink(size: int) -> Float[Tensor, "size half"]:
    """Scale of coefficients: 1 / frequency (one cycle's at 0), with root mean square 1."""
    scale = 1 / radii(size).clamp_min(1 / size)
    return scale / scale.square().mean().sqrt()


def to_pixels(coefficients: Complex[Tensor, "*batch size half"], size: int) -> Float[Tensor, "*batch size size"]:
    """Coefficients to pixels."""
    return torch.fft.irfft2(coefficients, s=(size, size), norm="ortho")


def to_coefficients(pixels: Float[Tensor, "*batch size size"]) -> Complex[Tensor, "*batch size half"]:
    """Pixels to coefficients."""
    return torch.fft.rfft2(pixels, norm="ortho")


def odd_phases(phases: Float[Tensor, "*batch size half"], size: int) -> Float[Tensor, "*batch size half"]:
    """Phases made odd under k -> -k in the columns where a real image's are.

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

    mean: Float[Tensor, "3"]
    """Mean colour."""
    colours: Float[Tensor, "3 3"]
    """Columns: directions in colour space, scaled to their standard deviation."""
    magnitudes: Float[Tensor, "3 size half"]
    """Mean magnitude of the coefficients of each channel of y; 0 for its mean."""

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.magnitudes.shape[-2]

    def channels(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
        """Images to uncorrelated channels y."""
        return torch.einsum("dc,nchw->ndhw", torch.linalg.inv(self.colours), images - self.mean[:, None, None])

    def pixels(self, channels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
        """Uncorrelated channels y to images, not clipped."""
        return torch.einsum("cd,ndhw->nchw", self.colours, channels) + self.mean[:, None, None]

    def to(self, device: str | torch.device) -> Spectrum:
        """The same on another device."""
        return Spectrum(*(part.to(device) for part in self))


def mean_spectrum(batches: list[Float[Tensor, "n 3 size size"]]) -> Spectrum:
    """The spectrum of batches of images in [0, 1]."""
    pixels = torch.cat([images.double().transpose(0, 1).flatten(1) for images in batches], dim=1)
    mean = pixels.mean(dim=1)
    values, directions = torch.linalg.eigh(torch.cov(pixels))
    colours = directions * values.clamp_min(1e-6).sqrt()
    size = batches[0].shape[-1]
    partial = Spectrum(mean, colours, torch.zeros(3, size, size // 2 + 1))
    magnitudes = torch.zeros(3, size, size // 2 + 1, dtype=torch.float64)
    for images in batches:
        magnitudes += to_coefficients(partial.channels(images.double())).abs().sum(dim=0)
    magnitudes /= sum(map(len, batches))
    magnitudes[:, 0, 0] = 0
    return Spectrum(mean.float(), colours.float(), magnitudes.float())
