"""The 2-D toy of paper 000 (appendices H and I): a Gaussian mixture, its score at every noise level, and a concept.

Methods take numpy arrays or torch tensors [..., 2] alike and answer in kind; torch answers are differentiable. Noising
keeps a Gaussian mixture one, so the denoiser is exact and a sampler's errors are its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Points = TypeVar("Points", np.ndarray, "Tensor")
"""[..., 2] positions, or what is computed from them."""
NEAR = 1e-12
"""Radius within which an angle is not told from the origin's."""


@dataclass(frozen=True)
class Mixture:
    """Equally weighted Gaussians N(mean, spread^2 I) in the plane."""

    means: tuple[tuple[float, float], ...] = ((2.0, 2.0), (2.0, -2.0), (-2.0, 2.0), (-2.0, -2.0))
    spread: float = 0.8

    def log_density(self, x: Points, alpha_bar: float = 1.0) -> Points:
        """log p_t(x), [...]; p_t is the law of sqrt(abar) x_0 + sqrt(1 - abar) eps (eq. 209)."""
        library, variance = _library(x), self._variance(alpha_bar)
        exponents = self._exponents(x, alpha_bar)
        top = library.amax(exponents, axis=-1)
        total = library.sum(library.exp(exponents - top[..., None]), axis=-1)
        return top + library.log(total) - math.log(2 * math.pi * variance * len(self.means))

    def noised_score(self, x: Points, alpha_bar: float) -> Points:
        """grad log p_t(x), [..., 2], the oracle score at signal share alpha_bar in [0, 1] (eq. 211)."""
        centre = math.sqrt(alpha_bar) * self._mean_of_means(x, alpha_bar)
        return (centre - x) / self._variance(alpha_bar)

    def denoise(self, x_t: Points, alpha_bar: float) -> Points:
        """E[x_0 | x_t], [..., 2]: Tweedie's formula without its division by sqrt(abar), so it holds at abar = 0."""
        pull = math.sqrt(alpha_bar) * self.spread**2 / self._variance(alpha_bar)
        centre = self._mean_of_means(x_t, alpha_bar)
        return centre + pull * (x_t - math.sqrt(alpha_bar) * centre)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw [n, 2] points."""
        centres = np.array(self.means)[rng.integers(len(self.means), size=n)]
        return centres + self.spread * rng.standard_normal((n, 2))

    def _variance(self, alpha_bar: float) -> float:
        return alpha_bar * self.spread**2 + 1 - alpha_bar

    def _exponents(self, x: Points, alpha_bar: float) -> Points:
        """-|x - sqrt(abar) mean|^2 / (2 variance), [..., components]."""
        centres = math.sqrt(alpha_bar) * _constant(self.means, x)
        squares = _library(x).sum((x[..., None, :] - centres) ** 2, axis=-1)
        return squares / (-2 * self._variance(alpha_bar))

    def _mean_of_means(self, x: Points, alpha_bar: float) -> Points:
        """The components' means, weighted by their responsibilities for x, [..., 2] (eq. 210)."""
        library, exponents = _library(x), self._exponents(x, alpha_bar)
        weights = library.exp(exponents - library.amax(exponents, axis=-1)[..., None])
        weights = weights / library.sum(weights, axis=-1)[..., None]
        return weights @ _constant(self.means, x)


@dataclass(frozen=True)
class AngularConcept:
    """The score s(x) = height (1 - cos(theta(x) - angle)): 0 in the direction `angle`, 2 height opposite (eq. 195)."""

    angle: float = math.pi / 4
    height: float = 4.0

    def __call__(self, x: Points) -> Points:
        """s, [...]; `height` at the origin, which has no angle."""
        cosine, _, _ = self._polar(x)
        return self.height * (1 - cosine)

    def gradient(self, x: Points) -> Points:
        """grad s, [..., 2], of size height |sin| / |x|; as much as NEAR allows at the origin."""
        cosine, unit, radius = self._polar(x)
        return self.height * (cosine[..., None] * unit - _constant(self.direction, x)) / radius[..., None]

    @property
    def direction(self) -> tuple[float, float]:
        """Unit vector along which the score is 0."""
        return math.cos(self.angle), math.sin(self.angle)

    def _polar(self, x: Points) -> tuple[Points, Points, Points]:
        """Cosine to the direction [...], unit vector [..., 2], and radius [...] of at least NEAR."""
        library = _library(x)
        radius = library.clip(library.sum(x * x, axis=-1), NEAR**2, None) ** 0.5
        unit = x / radius[..., None]
        return unit @ _constant(self.direction, x), unit, radius


def _library(x: Points) -> ModuleType:
    """The library whose arrays these are; torch is not loaded for numpy's."""
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch


def _constant(values: tuple, like: Points) -> Points:
    return _library(like).asarray(values, dtype=like.dtype, device=like.device)
