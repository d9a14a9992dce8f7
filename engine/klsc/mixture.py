"""A Gaussian mixture in the plane with a concept (appendices H and I), and its exact laws to hold samplers against.

`Mixture` and `AngularConcept` take numpy arrays or torch tensors [..., 2] alike and answer in kind; torch answers are
differentiable. Noising keeps a Gaussian mixture one, so the denoiser is exact and a sampler's errors are its own.

The concept's score depends on the angle alone, whose density under a mixture is closed form: `score_law` needs a
midpoint rule on a circle where Monte Carlo would need a million points. `Grid` compares samples with a density.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from engine.errors import BlindspotError
from engine.klsc.law import Atoms, kl, log_probabilities

if TYPE_CHECKING:
    from torch import Tensor

Points = TypeVar("Points", np.ndarray, "Tensor")
"""[..., 2] positions, or what is computed from them."""
NEAR = 1e-12
"""Radius within which an angle is not told from the origin's."""
NODES = 2**17
"""Quadrature nodes: resolves boundary masses, which end inside a cell, to 1e-5."""
ORDER = 12
"""Gauss-Legendre nodes across a cell of the grid."""


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


class ScoreLaw(NamedTuple):
    """The law of s(X) for X ~ p, on quadrature nodes."""

    scores: Atoms
    """Increasing."""
    log_weights: Atoms
    """Not normalised."""


def angle_density(mixture: Mixture, theta: np.ndarray) -> np.ndarray:
    """Density of the angle of X, per radian, at theta [...].

    A component N(mean, spread^2 I), integrated over the radius, has the density
    exp(-a^2 / 2) / (2 pi) + c Phi(c) exp(-(a^2 - c^2) / 2) / sqrt(2 pi),
    with a = |mean| / spread and c = a cos(theta - angle of the mean).
    """
    means = np.array(mixture.means)
    reach = np.hypot(*means.T) / mixture.spread
    along = reach * np.cos(np.asarray(theta)[..., None] - np.arctan2(means[:, 1], means[:, 0]))
    rest = np.exp(-(reach**2) / 2) / (2 * math.pi)
    ahead = along * ndtr(along) * np.exp((along**2 - reach**2) / 2) / math.sqrt(2 * math.pi)
    return (rest + ahead).mean(axis=-1)


def score_law(mixture: Mixture, concept: AngularConcept, nodes: int = NODES) -> ScoreLaw:
    """The law of the concept's score under the mixture, by the midpoint rule in the angle."""
    turn = (np.arange(nodes) + 0.5) * (math.pi / nodes)
    density = angle_density(mixture, concept.angle + turn) + angle_density(mixture, concept.angle - turn)
    return ScoreLaw(concept.height * (1 - np.cos(turn)), np.log(density))


@dataclass(frozen=True)
class Grid:
    """A square [-reach, reach]^2 cut into side x side cells; what lies outside is left out."""

    reach: float = 6.0
    side: int = 30

    def log_masses(self, log_density: Callable[[np.ndarray], np.ndarray]) -> Float[np.ndarray, " cells"]:
        """Log-probabilities of the side^2 cells under a density (of points [n, 2]), which need not be normalised."""
        nodes, shares = np.polynomial.legendre.leggauss(ORDER)
        width = 2 * self.reach / self.side
        lefts = -self.reach + width * np.arange(self.side)
        line = (lefts[:, None] + width * (nodes + 1) / 2).ravel()
        values = log_density(np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2))
        top = values.max()
        cells = np.exp(values - top).reshape(self.side, ORDER, self.side, ORDER)
        masses = np.einsum("iajb,a,b->ij", cells, shares, shares).ravel()
        with np.errstate(divide="ignore"):
            return log_probabilities(len(masses), np.log(masses))

    def counts(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " cells"]:
        """Number of points in each cell."""
        edges = np.linspace(-self.reach, self.reach, self.side + 1)
        return np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))[0].ravel()

    def kl(self, points: Float[np.ndarray, "n 2"], log_masses: Float[np.ndarray, " cells"]) -> float:
        """KL(samples || law) in nats over the cells, less the (occupied - 1) / (2 n) that n exact samples would show.

        Raises
        ------
        BlindspotError
            If no sample lies on the grid.
        """
        counts = self.counts(np.asarray(points, np.float64))
        inside = counts.sum()
        if not inside:
            raise BlindspotError(f"None of {len(points)} samples lies within {self.reach:g} of the origin.")
        with np.errstate(divide="ignore"):
            plain = kl(log_probabilities(len(counts), np.log(counts)), log_masses)
        return plain - (np.count_nonzero(counts) - 1) / (2 * inside)


def _library(x: Points) -> ModuleType:
    """The library whose arrays these are; torch is not loaded for numpy's."""
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch


def _constant(values: tuple[Any, ...], like: Points) -> Points:
    return _library(like).asarray(values, dtype=like.dtype, device=like.device)
