"""How often concepts fire and how strongly: laws fitted to the authors' 32,000 RA-SAE concepts on ImageNet.

Both laws are normal-Laplace on a log scale, log x = mu + sigma Z + E1 / alpha - E2 / beta with Z standard normal and
E1, E2 standard exponential (Reed and Jorgensen 2004): lognormal in the middle, a power law in each tail. One is for the
token codes above zero (`nb_fire` of the authors' table), the other for the energy of a code, which also rises a little
with how often the concept fires. The constants are what `fit_marginals` gives for the authors' table,
../shared/reference/saediff_imagenet_concepts.json.

Both laws are within 0.02 of the table (Kolmogorov-Smirnov). The last thousandth of concepts is heavier here: an energy
of about 900 at the 99.9th percentile where the table has 250, but for its three that fire in a third of all tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_ndtr

LARGEST_SHARE = 0.035
"""Of all codes above zero, at most so many belong to one concept, as in the authors' table."""
_HALF_LOG_TAU = 0.5 * np.log(2 * np.pi)


class NormalLaplace(NamedTuple):
    """A normal-Laplace law."""

    mu: float
    sigma: float
    alpha: float
    """Exponent of the upper tail of exp(x)."""
    beta: float
    """Exponent of its lower tail."""

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """float64 `[count]` draws."""
        normal, up, down = rng.normal(size=count), rng.exponential(size=count), rng.exponential(size=count)
        return self.mu + self.sigma * normal + up / self.alpha - down / self.beta

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density at `x`, of its shape."""
        z = (np.asarray(x) - self.mu) / self.sigma
        log_normal = -_HALF_LOG_TAU - z**2 / 2
        upper, lower = self.alpha * self.sigma - z, self.beta * self.sigma + z
        scale = np.log(self.alpha * self.beta / (self.alpha + self.beta))
        return scale + log_normal + np.logaddexp(_log_mills(upper), _log_mills(lower))

    @classmethod
    def fit(cls, x: np.ndarray) -> NormalLaplace:
        """The law of largest likelihood of a sample `[n]`."""

        def law(free: np.ndarray) -> NormalLaplace:
            return cls(float(free[0]), *np.exp(free[1:]).tolist())

        spread = x.std()
        start = np.array([x.mean(), np.log(spread / 2), np.log(2 / spread), np.log(2 / spread)])
        return law(minimize(lambda free: -law(free).log_density(x).mean(), start, method="L-BFGS-B").x)


class Marginals(NamedTuple):
    """The law of a concept's number of codes above zero, and of its energy given that number."""

    fires: NormalLaplace
    """log(nb_fire)."""
    slope: float
    """By how much log(energy / nb_fire) rises with log(nb_fire)."""
    strength: NormalLaplace
    """log(energy / nb_fire) - slope * log(nb_fire)."""

    def sample(self, concepts: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """`nb_fire` and `energy` of so many concepts, float64 `[concepts]` each, on the scale of the authors' table."""
        fires = self.fires.sample(concepts, rng)
        energy = (1 + self.slope) * fires + self.strength.sample(concepts, rng)
        fires = np.exp(fires)
        limit = max(LARGEST_SHARE, 4 / concepts) * fires.sum()
        return np.minimum(fires, limit), np.exp(energy) * np.minimum(1.0, limit / fires)


REFERENCE = Marginals(
    fires=NormalLaplace(mu=10.567, sigma=0.319, alpha=1.256, beta=2.003),
    slope=0.0826,
    strength=NormalLaplace(mu=-10.527, sigma=0.065, alpha=4.806, beta=33.08),
)
"""What `fit_marginals` gives for the authors' table."""


def fit_marginals(nb_fire: np.ndarray, energy: np.ndarray) -> Marginals:
    """Fit both laws to a table of concepts, `[concepts]` each; concepts that never fire are left out."""
    live = (nb_fire > 0) & (energy > 0)
    fires = np.log(nb_fire[live])
    strength = np.log(energy[live]) - fires
    slope = float(np.cov(fires, strength)[0, 1] / fires.var(ddof=1))
    return Marginals(NormalLaplace.fit(fires), slope, NormalLaplace.fit(strength - slope * fires))


def _log_mills(y: np.ndarray) -> np.ndarray:
    """log of (1 - Phi(y)) / phi(y)."""
    return log_ndtr(-y) + _HALF_LOG_TAU + y**2 / 2
