"""Exact expectations over the toy: its score depends on the angle alone, whose density under a mixture is closed form.

What takes a million Monte Carlo points in the plane is then a midpoint rule on a circle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from engine.klsc.mixture import AngularConcept, Mixture

NODES = 2**17
"""Resolves boundary masses, which end inside a cell, to 1e-5."""


class ScoreLaw(NamedTuple):
    """The law of s(X) for X ~ p, on quadrature nodes."""

    scores: np.ndarray
    """[n], increasing."""
    log_weights: np.ndarray
    """[n]."""


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
