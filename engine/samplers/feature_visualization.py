"""Feature visualization: gradient ascent on what images are made of, without a diffusion prior.

Three methods share the loop of `gradient_ascent` and differ in the parameterisation: MACO (only the Fourier phases are
free), regularised optimisation (Fourier coefficients with a total-variation penalty) and accentuation (a change of a
real image). Every other step evaluates the images under a random transform, the others as they are: a transform
interpolates, and what excites a concept only when interpolated does not excite it in the end. Samples never mix: Adam
works element by element, and each sample has its own generator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.base import OnStep, Samples, Score, StepEvent, announce, require_finite, sample_generators
from engine.samplers.execution import MicroBatches, samples_together
from engine.samplers.fourier import Spectrum, mean_spectrum, odd_phases, pink, to_pixels
from engine.samplers.models import real_images, thumbnails

if TYPE_CHECKING:
    from engine.atlas.reader import Atlas
    from engine.vision.encoder import Encoder
    from engine.vision.spec import EncoderSpec

IMAGENET_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.0, -0.05), (0.27, -0.09, 0.03))
"""Square root of ImageNet's colour covariance, as Lucid has it: columns are brightness and two contrasts."""
COLOUR_CONTRAST = 4.0
"""Scale of the colours before the sigmoid."""
SPECTRUM_IMAGES, SPECTRUM_BATCH = 2000, 100
"""Images that a corpus's mean spectrum is taken over at most, and at once."""


Transform = Callable[[Tensor, Tensor], Tensor]
"""Images [m, 3, height, width] of rows [m] as they are seen."""


@dataclass(frozen=True)
class RandomTransform:
    """Random views: what excites a concept by its looks survives them, an adversarial pattern does not."""

    shift: float = 0.06
    """Largest shift, in shares of the image's side."""
    zoom: tuple[float, float] = (0.9, 1.1)
    """Side of what is seen, in shares of the image's: below 1 a crop, above 1 a smaller picture."""
    noise: float = 0.0
    """Standard deviation of added noise, in shares of the range of pixels."""

    def draw(self, generators: list[torch.Generator], size: tuple[int, int], device: torch.device) -> Transform:
        """A view for each generator, of images of this height and width; beyond the edge images are mirrored."""
        draws = torch.stack([torch.rand(3, generator=generator) for generator in generators])
        side = self.zoom[0] + (self.zoom[1] - self.zoom[0]) * draws[:, 0]
        windows = torch.zeros(len(generators), 2, 3)
        windows[:, 0, 0] = windows[:, 1, 1] = side
        windows[:, :, 2] = 2 * self.shift * (2 * draws[:, 1:] - 1)
        windows, noise = windows.to(device), None
        if self.noise:
            noise = torch.stack([torch.randn(3, *size, generator=generator) for generator in generators])
            noise = (self.noise * noise).to(device)

        def transform(images: Tensor, rows: Tensor) -> Tensor:
            grid = F.affine_grid(windows[rows], list(images.shape), align_corners=False)
            seen = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
            return seen if noise is None else seen + noise[rows]

        return transform


JITTER = RandomTransform()
CROPS = RandomTransform(shift=0.1, zoom=(0.7, 1.0), noise=0.05)


class Parameterisation(ABC):
    """What images are made of while they are optimised."""

    variables: Float[Tensor, "n ..."]
    """Where the ascent starts."""

    @abstractmethod
    def images(self, variables: Float[Tensor, "m ..."], rows: Int[Tensor, " m"]) -> Float[Tensor, "m 3 height width"]:
        """Images in [0, 1] of variables that belong to these rows; differentiable."""

    def penalty(self, images: Float[Tensor, "m 3 height width"], rows: Int[Tensor, " m"]) -> Float[Tensor, " m"]:
        """What is subtracted from the score of images of these rows; differentiable."""
        return images.new_zeros(len(images))


def gradient_ascent(
    parameterisation: Parameterisation,
    score: Score,
    generators: list[torch.Generator],
    *,
    steps: int,
    rate: float,
    weight: float = 1.0,
    score_cap: float | None = None,
    transform: RandomTransform = JITTER,
    on_step: OnStep | None = None,
) -> Samples:
    """Climb weight x score - penalty with Adam, one sample per generator; the trace holds the scores of each step.

    Parameters
    ----------
    steps, rate
        Number of steps, and Adam's step size in units of the variables.
    weight
        How much the score counts against the penalty.
    score_cap
        A sample whose score, not transformed, exceeds this stays as it is.
    transform
        The random view of every other step.

    Raises
    ------
    BlindspotError
        For settings that make no sense, or if an image became infinite.
    Cancelled
        If `on_step` returned False.
    """
    if steps < 1:
        raise BlindspotError(f"{steps} optimisation steps were asked for: ask for at least 1.")
    if not math.isfinite(weight) or not math.isfinite(rate) or rate < 0:
        raise BlindspotError(f"Strength and step size must be finite numbers, not {weight} and {rate}.")
    variables, trace = parameterisation.variables.clone(), []
    batches = MicroBatches(group=samples_together("auto", variables.device))
    everyone = torch.arange(len(variables), device=variables.device)
    optimiser = torch.optim.Adam([variables], rate, maximize=True)
    reached = torch.full((len(variables),), -math.inf, device=variables.device)
    with torch.no_grad():
        height, width = parameterisation.images(variables[:1], everyone[:1]).shape[-2:]

    def evaluate(rows: Tensor, *, view: Transform | None) -> tuple[Tensor, Tensor, Tensor]:
        """Images, scores of what was seen, and the gradient of the variables of these rows."""
        part = variables[rows].requires_grad_()
        images = parameterisation.images(part, rows)
        scores = score(images if view is None else view(images, rows)).float()
        objective = weight * scores - parameterisation.penalty(images, rows)
        (gradient,) = torch.autograd.grad(objective.sum(), part)
        return images.detach(), scores.detach(), gradient

    for step in range(1, steps + 1):
        view = transform.draw(generators, (height, width), variables.device) if step % 2 else None
        parts = batches.map(partial(evaluate, view=view), everyone)
        images, scores, gradient = map(torch.cat, zip(*parts, strict=True))
        require_finite(gradient, scores, f"at step {step} of {steps}", "lower the strength")
        before, variables.grad = variables.clone(), gradient
        optimiser.step()
        reached = scores if view is None else reached
        if score_cap is not None:
            held = reached > score_cap
            variables[held] = before[held]
        trace.append(scores)
        announce(on_step, StepEvent(step, steps, scores, images))
    with torch.no_grad():
        images = torch.cat(batches.map(lambda rows: parameterisation.images(variables[rows], rows), everyone))
        scores = torch.cat(batches.map(score, images)).float()
    return Samples(images, scores, torch.stack(trace))


@dataclass(frozen=True)
class MACO:
    """Magnitude-constrained optimisation (arXiv:2306.06805): images of the corpus's magnitudes, whose phases are free.

    Every image has the mean Fourier magnitudes of the corpus, so that the ascent cannot put energy into the high
    frequencies; what it may choose is where edges are, which the phases say.
    """

    spectrum: Spectrum
    """Magnitudes and colours of the corpus, see `corpus_spectrum`; samples are made on its device."""
    steps: int = 200
    """Optimisation steps."""
    strength: float = 0.1
    """How far a step moves a phase, in radians (Adam's step size); 0 leaves the phases random."""
    score_cap: float | None = None
    """A sample whose score, not transformed, exceeds this stays as it is."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`."""
        generators = sample_generators(seed, n, first)
        phases = PhaseParameterisation(self.spectrum, generators)
        return gradient_ascent(
            phases, score, generators, steps=self.steps, rate=self.strength, score_cap=self.score_cap,
            transform=CROPS, on_step=on_step,
        )  # fmt: skip


class PhaseParameterisation(Parameterisation):
    """Images by their phases [n, 3, size, size // 2 + 1] in radians; random at first, drawn from each generator."""

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


@dataclass(frozen=True)
class RegularisedOptimisation:
    """Images that excite the score most for their total variation (Olah et al. 2017, "Feature Visualization").

    Images are Fourier coefficients whose scale falls as one over the frequency, with correlated colours and a sigmoid
    at the end. The regulariser stands in for natural images, so what comes out is the mode of exp(strength s - TV),
    not a typical image (arXiv:2605.17504, eq. 18 and 19).
    """

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
    score_cap: float | None = None
    """A sample whose score, not transformed, exceeds this stays as it is."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`."""
        generators = sample_generators(seed, n, first)
        coefficients = FourierParameterisation(self.size, self.variation, generators, self.device)
        return gradient_ascent(
            coefficients, score, generators, steps=self.steps, rate=self.rate, weight=self.strength,
            score_cap=self.score_cap, on_step=on_step,
        )  # fmt: skip


class FourierParameterisation(Parameterisation):
    """Images by Fourier coefficients [n, 3, size, size // 2 + 1, 2], real and imaginary; small noise at first."""

    def __init__(self, size: int, variation: float, generators: list[torch.Generator], device: str | torch.device):
        self.size, self.variation = size, variation
        shape = (3, size, size // 2 + 1, 2)
        draws = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        self.variables = (0.1 * draws).to(device)
        self.decay = pink(size).to(device)
        self.colours = torch.tensor(IMAGENET_COLOURS, device=device) * COLOUR_CONTRAST

    def images(self, variables: Tensor, rows: Tensor) -> Tensor:
        """Images [m, 3, size, size] in (0, 1)."""
        channels = to_pixels(torch.view_as_complex(variables) * self.decay, self.size)
        return torch.einsum("cd,ndhw->nchw", self.colours, channels).sigmoid()

    def penalty(self, images: Tensor, rows: Tensor) -> Tensor:
        """Weighted total variation [m]."""
        return self.variation * total_variation(images)


@dataclass(frozen=True)
class PixelOptimisation:
    """Images pixel by pixel, with nothing that keeps them natural: what fools the score (arXiv:1412.1897)."""

    size: int
    """Side of the images in pixels."""
    device: str | torch.device = "cpu"
    """Where they are made."""
    steps: int = 200
    """Optimisation steps."""
    rate: float = 0.1
    """Adam's step size, in units of the pixels' logits."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`."""
        generators = sample_generators(seed, n, first)
        pixels = PixelParameterisation(self.size, generators, self.device)
        return gradient_ascent(pixels, score, generators, steps=self.steps, rate=self.rate, on_step=on_step)


class PixelParameterisation(Parameterisation):
    """Images by the logits of their pixels [n, 3, size, size]; grey noise at first."""

    def __init__(self, size: int, generators: list[torch.Generator], device: str | torch.device):
        draws = torch.stack([torch.randn(3, size, size, generator=generator) for generator in generators])
        self.variables = (0.5 * draws).to(device)

    def images(self, variables: Tensor, rows: Tensor) -> Tensor:
        """Images [m, 3, size, size] in (0, 1)."""
        return variables.sigmoid()


def total_variation(images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
    """Anisotropic total variation per pixel: mean |difference| of neighbours, down plus right."""
    down, right = images.diff(dim=-2).abs(), images.diff(dim=-1).abs()
    return down.flatten(1).mean(dim=1) + right.flatten(1).mean(dim=1)


@dataclass(frozen=True)
class Accentuation:
    """Real images in which the score's concept was brought out (feature accentuation, arXiv:2402.10039).

    Each sample starts from a real image and climbs strength x score - distance, the distance being that of the
    encoder's patch tokens to the seed's, so that the image stays about what it was about.
    """

    encoder: Encoder
    """Whose features should stay near the seed's."""
    seeds: Float[Tensor, "m 3 size size"]
    """Images in [0, 1] to start from; each sample takes one at random, so give one to choose it."""
    steps: int = 200
    """Optimisation steps."""
    strength: float = 1.0
    """How much a unit of score counts against the penalty; 0 returns the seed image."""
    rate: float = 0.01
    """Adam's step size, in units of the coefficients."""
    score_cap: float | None = None
    """A sample whose score, not transformed, exceeds this stays as it is."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`."""
        generators = sample_generators(seed, n, first)
        chosen = [int(torch.randint(len(self.seeds), (), generator=generator)) for generator in generators]
        return gradient_ascent(
            ChangeParameterisation(self.encoder, self.seeds[chosen]), score, generators, steps=self.steps,
            rate=self.rate, weight=self.strength, score_cap=self.score_cap, on_step=on_step,
        )  # fmt: skip


class ChangeParameterisation(Parameterisation):
    """Images by what was added to seeds [n, 3, size, size]: Fourier coefficients [n, 3, size, size // 2 + 1, 2]."""

    def __init__(self, encoder: Encoder, seeds: Tensor):
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


@lru_cache(maxsize=2)
def corpus_spectrum(atlas: Atlas, spec: EncoderSpec) -> Spectrum:
    """The spectrum of an atlas's real images, at the encoder's size; kept for the next drawing.

    Raises
    ------
    BlindspotError
        If the atlas has no real images.
    """
    images = real_images(atlas, SPECTRUM_IMAGES)
    starts = range(0, len(images), SPECTRUM_BATCH)
    return mean_spectrum([thumbnails(atlas, images[start : start + SPECTRUM_BATCH], spec) for start in starts])


def corpus_seeds(atlas: Atlas, spec: EncoderSpec, count: int = 256) -> Float[Tensor, "m 3 size size"]:
    """Real images of an atlas to start from, at most `count`, evenly spread over it.

    Raises
    ------
    BlindspotError
        If it has none.
    """
    return thumbnails(atlas, real_images(atlas, count), spec)
