"""Gradient ascent on what images are made of: the loop that MACO, regularised optimisation and accentuation share.

A sketch has variables and turns them into images; Adam moves the variables so that the score of the images grows and
the sketch's penalty shrinks. Every other step looks at the images shaken, the others as they are: shaking interpolates,
and what excites a concept only when interpolated does not excite it in the end. Samples never mix: Adam works element
by element, and each sample shakes by its own generator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.base import OnStep, Samples, Score, StepEvent, announce
from engine.samplers.look import require_finite
from engine.samplers.memory import Pieces


class Shaken(NamedTuple):
    """One random view of each image."""

    windows: Tensor
    """[n, 2, 3], the affine maps of `affine_grid`: which part of the image is seen."""
    noise: Tensor | None
    """[n, 3, H, W], added; None for none."""

    def of(self, images: Tensor, rows: Tensor) -> Tensor:
        """Images [m, 3, H, W] of these rows [m] as they are seen; beyond the edge they are mirrored."""
        grid = F.affine_grid(self.windows[rows], list(images.shape), align_corners=False)
        seen = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        return seen if self.noise is None else seen + self.noise[rows]


@dataclass(frozen=True)
class Shake:
    """Random views: what excites a concept by its looks survives them, an adversarial pattern does not."""

    shift: float = 0.06
    """Largest shift, in shares of the image's side."""
    zoom: tuple[float, float] = (0.9, 1.1)
    """Side of what is seen, in shares of the image's: below 1 a crop, above 1 a smaller picture."""
    noise: float = 0.0
    """Standard deviation of added noise, in shares of the range of pixels."""

    def draw(self, generators: list[torch.Generator], size: tuple[int, int], device: torch.device) -> Shaken:
        """A view for each generator, of images of this height and width."""
        draws = torch.stack([torch.rand(3, generator=generator) for generator in generators])
        side = self.zoom[0] + (self.zoom[1] - self.zoom[0]) * draws[:, 0]
        windows = torch.zeros(len(generators), 2, 3)
        windows[:, 0, 0] = windows[:, 1, 1] = side
        windows[:, :, 2] = 2 * self.shift * (2 * draws[:, 1:] - 1)
        noise = None
        if self.noise:
            noise = torch.stack([torch.randn(3, *size, generator=generator) for generator in generators])
            noise = (self.noise * noise).to(device)
        return Shaken(windows.to(device), noise)


JITTER = Shake()


class Sketch(ABC):
    """What images are made of while they are optimised."""

    variables: Tensor
    """[n, ...], where the ascent starts."""

    @abstractmethod
    def images(self, variables: Tensor, rows: Tensor) -> Tensor:
        """Images [m, 3, H, W] in [0, 1] of variables [m, ...] that belong to these rows [m]; differentiable."""

    def penalty(self, images: Tensor, rows: Tensor) -> Tensor:
        """[m], what speaks against images [m, 3, H, W] of these rows [m]; differentiable."""
        return images.new_zeros(len(images))


@dataclass(frozen=True)
class Ascent:
    """Adam's way up weight x score - penalty.

    Raises
    ------
    BlindspotError
        For settings that make no sense.
    """

    steps: int
    """Steps, each one look at every image."""
    rate: float
    """Adam's step size, in units of the variables."""
    weight: float = 1.0
    """How much the score counts against the penalty."""
    cap: float | None = None
    """A sample whose score, unshaken, exceeds this stays as it is."""
    shake: Shake = JITTER
    """How images are looked at in every other step."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise BlindspotError(f"{self.steps} optimisation steps were asked for: ask for at least 1.")
        if not math.isfinite(self.weight) or not math.isfinite(self.rate) or self.rate < 0:
            raise BlindspotError(f"Strength and step size must be finite numbers, not {self.weight} and {self.rate}.")

    def run(
        self, sketch: Sketch, score: Score, generators: list[torch.Generator], on_step: OnStep | None = None
    ) -> Samples:
        """Optimise the sketch of each generator's sample; the trace holds the scores of what was looked at.

        Raises
        ------
        BlindspotError
            If an image left the real numbers.
        Cancelled
            If `on_step` said so.
        """
        variables, trace, pieces = sketch.variables.clone(), [], Pieces(group=1)
        everyone = torch.arange(len(variables), device=variables.device)
        climber = torch.optim.Adam([variables], self.rate, maximize=True)
        reached = torch.full((len(variables),), -math.inf, device=variables.device)
        with torch.no_grad():
            size = tuple(sketch.images(variables[:1], everyone[:1]).shape[-2:])
        for step in range(1, self.steps + 1):
            shaken = self.shake.draw(generators, size, variables.device) if step % 2 else None

            def look(rows: Tensor, shaken: Shaken | None = shaken) -> tuple[Tensor, ...]:
                return self._look(sketch, score, variables, shaken, rows)

            images, scores, gradient = map(torch.cat, zip(*pieces.map(look, everyone), strict=True))
            require_finite(gradient, scores, f"at step {step} of {self.steps}", "lower the strength")
            before, variables.grad = variables.clone(), gradient
            climber.step()
            reached = scores if shaken is None else reached
            if self.cap is not None:
                held = reached > self.cap
                variables[held] = before[held]
            trace.append(scores)
            announce(on_step, StepEvent(step, self.steps, scores, lambda images=images: images))
        with torch.no_grad():
            images = torch.cat(pieces.map(lambda rows: sketch.images(variables[rows], rows), everyone))
            scores = torch.cat(pieces.map(score, images)).float()
        return Samples(images, scores, torch.stack(trace))

    def _look(
        self, sketch: Sketch, score: Score, variables: Tensor, shaken: Shaken | None, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images, scores of what was looked at, and the gradient of the variables of these rows."""
        part = variables[rows].requires_grad_()
        images = sketch.images(part, rows)
        scores = score(images if shaken is None else shaken.of(images, rows)).float()
        worth = self.weight * scores - sketch.penalty(images, rows)
        (gradient,) = torch.autograd.grad(worth.sum(), part)
        return images.detach(), scores.detach(), gradient
