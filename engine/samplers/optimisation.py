"""Regularised optimisation (Olah et al. 2017, "Feature Visualization"): strength x score - total variation, from noise.

Images are Fourier coefficients whose scale falls as one over the frequency, with correlated colours and a sigmoid at
the end; they are looked at through random shifts and scales. The regulariser is a stand-in for natural images, so what
comes out is the mode of exp(strength s - TV), not a typical image (paper 000, eq. 18 and 19).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.ascent import JITTER, Ascent, Shake, Sketch
from engine.samplers.base import OnStep, Samples, Score, sample_generators
from engine.samplers.fourier import radii, to_pixels

COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
"""Square root of ImageNet's colour covariance, as Lucid has it: columns are brightness and two contrasts."""
CONTRAST = 4.0
"""Scale of the colours before the sigmoid."""


@dataclass(frozen=True)
class RegularisedOptimisation:
    """Images that excite the score most for their total variation."""

    size: int
    """Side of the images in pixels."""
    device: str | torch.device = "cpu"
    """Where they are made."""
    steps: int = 200
    """Optimisation steps."""
    strength: float = 1.0
    """How much a unit of score counts against the penalty; 0 leaves almost flat images."""
    variation: float = 10.0
    """How much total variation counts, see `total_variation`."""
    rate: float = 0.05
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
        sketch = Coefficients(self.size, self.variation, generators, self.device)
        return ascent.run(sketch, score, generators, on_step)


class Coefficients(Sketch):
    """Images by Fourier coefficients [n, 3, size, size // 2 + 1, 2], real and imaginary; small noise at first."""

    def __init__(self, size: int, variation: float, generators: list[torch.Generator], device: str | torch.device):
        self.size, self.variation = size, variation
        shape = (3, size, size // 2 + 1, 2)
        draws = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        self.variables = (0.1 * draws).to(device)
        self.decay = pink(size).to(device)
        self.colours = torch.tensor(COLOURS, device=device) * CONTRAST

    def images(self, variables: Tensor, rows: Tensor) -> Tensor:
        """Images [m, 3, size, size] in (0, 1)."""
        channels = to_pixels(torch.view_as_complex(variables) * self.decay, self.size)
        return torch.einsum("cd,ndhw->nchw", self.colours, channels).sigmoid()

    def penalty(self, images: Tensor, rows: Tensor) -> Tensor:
        """Weighted total variation [m]."""
        return self.variation * total_variation(images)


def pink(size: int) -> Tensor:
    """[size, size // 2 + 1], scale of coefficients: 1 / frequency (one cycle's at 0), with root mean square 1."""
    scale = 1 / radii(size).clamp_min(1 / size)
    return scale / scale.square().mean().sqrt()


def total_variation(images: Tensor) -> Tensor:
    """Anisotropic total variation per pixel [n]: mean |difference| of neighbours, down plus right, of [n, 3, H, W]."""
    down, right = images.diff(dim=-2).abs(), images.diff(dim=-1).abs()
    return down.flatten(1).mean(dim=1) + right.flatten(1).mean(dim=1)
