"""MACO, magnitude-constrained optimisation (Fel et al. 2023, arXiv 2306.06805): only the phases are free.

Every image has the mean Fourier magnitudes of the corpus, so that an ascent cannot pour energy into the high
frequencies; what it may choose is where edges are, which the phases say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.ascent import Ascent, Shake, Sketch
from engine.samplers.base import OnStep, Samples, Score, sample_generators
from engine.samplers.fourier import Spectrum, odd_phases, to_pixels

CROPS = Shake(shift=0.1, zoom=(0.7, 1.0), noise=0.05)


@dataclass(frozen=True)
class MACO:
    """Images of the corpus's magnitudes whose phases the score chose."""

    spectrum: Spectrum
    """Magnitudes and colours of the corpus, see `corpus_spectrum`; samples are made where it lies."""
    steps: int = 200
    """Optimisation steps."""
    strength: float = 0.1
    """How far a step moves a phase, in radians (Adam's step size); 0 leaves the phases random."""
    cap: float | None = None
    """A sample whose score, unshaken, exceeds this stays as it is."""
    shake: Shake = CROPS
    """Random crops and noise."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`."""
        if n < 1:
            raise BlindspotError(f"{n} samples were asked for: ask for at least 1.")
        ascent = Ascent(self.steps, self.strength, cap=self.cap, shake=self.shake)
        generators = sample_generators(seed, n)
        return ascent.run(Phases(self.spectrum, generators), score, generators, on_step)


class Phases(Sketch):
    """Images by their phases [n, 3, size, size // 2 + 1] in radians; random at first, a draw from each generator."""

    def __init__(self, spectrum: Spectrum, generators: list[torch.Generator]):
        self.spectrum = spectrum
        shape = spectrum.magnitudes.shape
        draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
        self.variables = (2 * math.pi * draws).to(spectrum.magnitudes.device)

    def channels(self, phases: Tensor) -> Tensor:
        """Uncorrelated colour channels [m, 3, size, size], whose Fourier magnitudes are the spectrum's, exactly."""
        size = self.spectrum.size
        magnitudes = self.spectrum.magnitudes.expand_as(phases)
        return to_pixels(torch.polar(magnitudes, odd_phases(phases, size)), size)

    def images(self, variables: Tensor, rows: Tensor) -> Tensor:
        """Images [m, 3, size, size], clipped to [0, 1]."""
        return self.spectrum.pixels(self.channels(variables)).clamp(0, 1)
