"""Task injection: samples of p exp(beta s + eta f), for a score s that explains and a task f that pleases (paper 000).

Resembling a given image or fitting a text looks harmless and makes pictures that people like better; but at the same
mean of s every bit of f bends the law away from what the concept alone would show. `drift` reports how far.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.samplers.base import OnStep, Sampler, Samples, Score


@dataclass(frozen=True)
class Injected:
    """s + ratio f. A sampler that tilts by beta times this has the law p exp(beta s + eta f), eta = ratio beta."""

    score: Score
    task: Score
    ratio: float
    """eta / beta: what a unit of f is worth in units of s; negative values avoid the task."""

    def __call__(self, images: Tensor) -> Tensor:
        """Scores [B] of images [B, 3, H, W] in [0, 1]; differentiable."""
        return self.score(images) + self.ratio * self.task(images) if self.ratio else self.score(images)


@dataclass(frozen=True)
class TaskInjection:
    """Any sampler, made to serve a task besides the score that it is given."""

    sampler: Sampler
    """Its strength is beta."""
    task: Score
    """f, images [B, 3, H, W] in [0, 1] to [B]; differentiable."""
    ratio: float = 1.0
    """eta / beta, see `Injected`."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`. Their scores are s alone."""
        drawn = self.sampler.sample(Injected(score, self.task, self.ratio), n, seed, on_step)
        with torch.no_grad():
            return Samples(drawn.images, score(drawn.images).float(), drawn.trace)
