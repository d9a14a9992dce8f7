"""Level sets in the plane, with their exact laws: where the methods of `levelset` and `walk` are held to the truth.

Two responses: the ellipse f(z) = z1^2 / a^2 + z2^2 / b^2, and a small network that tells points inside a circle from
those outside (EquiDiff, figure 3.1). The law of z ~ N(0, I) given f(z) = y is integrated along rays from the origin,
without the gradient of f that the samplers use: its mass between two angles is

    int dtheta sum_r phi(r, theta) r / |d f / d r|,    over the roots r of f(r, theta) = y.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from engine.errors import BlindspotError
from engine.invariance.levelset import LevelSet, Response, anneal, descend, project
from engine.invariance.walk import walk

ARCS = 24
METHODS = ("gradient", "projection", "walk")
CURVE_STEPS, START_SHARE = 60, 0.25
"""Steps of a walk in the plane, and particles for each member that annealing spreads along the set."""
LARGEST_MEMBERS = 200_000
OUTERMOST = 7.0
"""Radius beyond which a standard normal has a mass of 2e-11."""


@dataclass(frozen=True)
class Ellipse:
    """f(z) = z1^2 / a^2 + z2^2 / b^2.

    Raises
    ------
    BlindspotError
        If a half-axis is not positive, or so long that a standard normal never meets the curve f = 1.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(axis) and 0.01 <= axis <= 100 for axis in (self.a, self.b)) or self.shortest > 6:
            raise BlindspotError(
                f"The half-axes {self.a:g} and {self.b:g} make no ellipse that standard normal points reach: choose "
                "numbers from 0.01 to 100, the shorter one up to 6."
            )

    @property
    def shortest(self) -> float:
        """The shorter half-axis."""
        return min(self.a, self.b)

    def __call__(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 1"]:
        """Responses."""
        return (z / z.new_tensor([self.a, self.b])).square().sum(dim=1, keepdim=True)

    def arcs(self, z: np.ndarray, count: int = ARCS) -> np.ndarray:
        """Number of the arc, by the angle of (z1 / a, z2 / b) from 0, int [n]."""
        turns = np.arctan2(z[:, 1] / self.b, z[:, 0] / self.a) / (2 * math.pi) % 1
        return np.minimum((turns * count).astype(int), count - 1)

    def law(self, count: int = ARCS, nodes: int = 400) -> np.ndarray:
        """Exact share of each arc [count] on f = 1.

        With z = (a cos t, b sin t) the arc length over |grad f| is a b dt / 2, so that the law has the density
        phi(a cos t, b sin t) in t, up to a constant.
        """
        t = (np.arange(count * nodes) + 0.5) * (2 * math.pi / (count * nodes))
        density = np.exp(-((self.a * np.cos(t)) ** 2 + (self.b * np.sin(t)) ** 2 - self.shortest**2) / 2)
        shares = density.reshape(count, nodes).sum(axis=1)
        return shares / shares.sum()


def ray_law(response: Response, target: float, count: int = ARCS, rays: int = 40, cells: int = 4000) -> np.ndarray:
    """Share of each of `count` arcs by angle from the origin, for any response in the plane, by roots along rays."""
    angles = (np.arange(count * rays) + 0.5) * (2 * math.pi / (count * rays))
    radii = (np.arange(cells + 1) + 1e-6) * (OUTERMOST / cells)
    mass = np.zeros(len(angles))
    for index, angle in enumerate(angles):
        points = torch.from_numpy(radii[:, None] * np.array([math.cos(angle), math.sin(angle)]))
        with torch.no_grad():
            values = response(points)[:, 0].double().numpy() - target
        crossing = np.flatnonzero(values[:-1] * values[1:] < 0)
        slope = (values[crossing + 1] - values[crossing]) / np.diff(radii)[crossing]
        roots = radii[crossing] - values[crossing] / slope
        mass[index] = (np.exp(-(roots**2) / 2) * roots / np.abs(slope)).sum()
    shares = mass.reshape(count, rays).sum(axis=1)
    if not shares.sum() > 0:
        raise BlindspotError(f"No standard normal point has the response {target:g}: choose another query.")
    return shares / shares.sum()


def circles(points: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points of the plane and whether they lie outside the unit circle, float64 [points, 2] and bool [points]."""
    rng = np.random.default_rng(seed)
    radius, angle = np.sqrt(rng.uniform(0, 4, points)), rng.uniform(0, 2 * math.pi, points)
    radius = radius + 0.03 * rng.standard_normal(points)
    places = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return places, np.linalg.norm(places, axis=1) > 1


class CircleClassifier(nn.Module):
    """Three layers that give the log-odds of lying outside the unit circle.

    The probability is a function of these, so both have the same level sets, and z given either the same law: only
    |grad f| differs, by a factor that is constant along a set. The log-odds are far less curved.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        ).double()

    def forward(self, z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 1"]:
        """Log-odds."""
        return self.layers(z.double())


@lru_cache(maxsize=2)
def circle_classifier(seed: int = 0, steps: int = 400) -> CircleClassifier:
    """The network trained on `circles`, the same each time; a second on a CPU."""
    places, outside = circles(seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CircleClassifier()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    inputs, wanted = torch.from_numpy(places), torch.from_numpy(outside).double()[:, None]
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network.layers(inputs), wanted).backward()
        optimiser.step()
    return network.requires_grad_(False)


class MethodOnCurve(NamedTuple):
    """What one method found on a level curve."""

    arcs: list[float]
    """Share of members in each arc."""
    tv: float
    """Total variation distance to the exact shares."""
    chi_square: float
    """Pearson's statistic over its degrees of freedom: about 1 where only chance is left."""
    residual: float
    """Largest |f(z) - y| of the members that converged."""
    converged: float
    """Share of starts that did."""
    evaluations: float
    """Evaluations of f for each member, gradients counted once more."""
    members: Any
    """float64 [n, 2], those that converged."""


def sample_curve(
    response: Response,
    target: float,
    method: str,
    members: int,
    seed: int = 0,
    *,
    learning_rate: float = 0.01,
    tolerance: float = 1e-3,
    walk_steps: int = CURVE_STEPS,
) -> tuple[np.ndarray, float, float, float]:
    """Members [n, 2] of a level curve by one method, their largest residual, the share that converged, and the cost.

    `gradient` is Algorithm 1 as printed, at a learning rate (eta times lambda) at which it does not diverge;
    `projection` starts at the same draws of the prior; `walk` starts from annealed and projected particles.
    """
    if method not in METHODS:
        raise BlindspotError(f"There is no method {method!r}: choose one of {', '.join(METHODS)}.")
    generator = torch.Generator().manual_seed(seed)
    level = LevelSet(response, torch.tensor([target], dtype=torch.float64))
    if method == "walk":
        particles = max(16, round(START_SHARE * members))
        spread = anneal(level, (2,), particles, 0.1 * level.scale, generator, dtype=torch.float64)
        reached = project(level, spread, tolerance / 10)
        starts = reached.latents[reached.converged]
        if not len(starts):
            raise BlindspotError(f"No point with the response {target:g} was found: choose another query.")
        found = walk(
            level, starts[torch.arange(members) % len(starts)], walk_steps, generator, tolerance=tolerance / 10
        )
        latents, residuals = found.latents, found.residuals
        converged = residuals <= tolerance
    else:
        start = torch.randn(members, 2, generator=generator, dtype=torch.float64)
        if method == "projection":
            reached = project(level, start, tolerance)
        else:
            reached = descend(level, start, scale=1.0, learning_rate=learning_rate, threshold=tolerance**2, steps=1024)
        latents, residuals, converged = reached.latents, reached.residuals, reached.converged
    cost = (level.evaluations + level.gradients) / members
    kept = latents[converged].numpy()
    largest = float(residuals[converged].max()) if len(kept) else math.nan
    return kept, largest, float(converged.double().mean()), cost


def compare(
    response: Response,
    target: float,
    exact: np.ndarray,
    arcs_of: Callable[[np.ndarray], np.ndarray],
    members: int,
    seed: int = 0,
    methods: tuple[str, ...] = METHODS,
) -> dict[str, MethodOnCurve]:
    """Every method's members by arcs, beside the exact shares [arcs]."""
    if not 1 <= members <= LARGEST_MEMBERS:
        raise BlindspotError(f"{members} members were asked for: ask for 1 to {LARGEST_MEMBERS:,}.")
    table = {}
    for method in methods:
        kept, largest, share, cost = sample_curve(response, target, method, members, seed)
        counts = np.bincount(arcs_of(kept), minlength=len(exact)).astype(float) if len(kept) else np.zeros(len(exact))
        shares = counts / max(1.0, counts.sum())
        expected = np.maximum(exact * counts.sum(), 1e-12)
        chi_square = float(((counts - expected) ** 2 / expected).sum() / (len(exact) - 1)) if counts.sum() else math.nan
        tv = float(np.abs(shares - exact).sum() / 2) if counts.sum() else math.nan
        table[method] = MethodOnCurve(shares.tolist(), tv, chi_square, largest, share, cost, kept)
    return table


def compare_ellipse(a: float, b: float, members: int, seed: int = 0) -> dict[str, MethodOnCurve]:
    """The methods on z1^2 / a^2 + z2^2 / b^2 = 1 under z ~ N(0, I)."""
    ellipse = Ellipse(a, b)
    return compare(ellipse, 1.0, ellipse.law(), ellipse.arcs, members, seed)
