"""Samples against an exact law in the plane: cell probabilities on a square grid, and a KL that allows for chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.errors import BlindspotError
from engine.klsc.law import kl, log_probabilities

ORDER = 12
"""Gauss-Legendre nodes across a cell."""


@dataclass(frozen=True)
class Grid:
    """A square [-reach, reach]^2 cut into side x side cells; what lies outside is left out."""

    reach: float = 6.0
    side: int = 30

    def log_masses(self, log_density: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Log-probabilities [side^2] of the cells under a density, which need not be normalised.

        Parameters
        ----------
        log_density : points [n, 2] to [n].
        """
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

    def counts(self, points: np.ndarray) -> np.ndarray:
        """Number of points [n, 2] in each cell, [side^2]."""
        edges = np.linspace(-self.reach, self.reach, self.side + 1)
        return np.histogram2d(points[:, 0], points[:, 1], bins=(edges, edges))[0].ravel()

    def kl(self, points: np.ndarray, log_masses: np.ndarray) -> float:
        """KL(samples || law) in nats over the cells, less the (occupied - 1) / (2 n) that n exact samples would show.

        Parameters
        ----------
        points : [n, 2] samples.
        log_masses : [side^2] from `log_masses`.

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
