"""How one model's deltas are spread over concepts: histogram, median, skewness, tail masses, and the ranking.

Paper 004, sections 4.1, 4.3 and D.3: 100 bins on [0, 1] with a logarithmic density axis. Only live concepts count: a
dead one is neutral by construction and would pile up at one half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.errors import BlindspotError

BINS = 100
ROUNDING = 1e-12


class DeltaDistribution(NamedTuple):
    """The spread of delta over live concepts."""

    concepts: int
    """Live concepts, n."""
    edges: np.ndarray
    """[bins + 1] bin edges from 0 to 1."""
    counts: np.ndarray
    """[bins] int64 concepts per bin; the last bin holds delta = 1."""
    density: np.ndarray
    """[bins] share of concepts per unit of delta; integrates to 1."""
    median: float
    """Median delta; nan without concepts."""
    skewness: float
    """Third standardised moment (of the population); below 0 the tail is on the suppressed side; 0 without spread."""
    suppressed: float
    """Share of concepts below the lower threshold."""
    exaggerated: float
    """Share of concepts above the upper threshold."""

    @property
    def centres(self) -> np.ndarray:
        """[bins] middle of each bin."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def log_density(self) -> np.ndarray:
        """[bins] decimal logarithm of the density; nan in empty bins, which have no place on a log axis."""
        return np.log10(self.density, out=np.full(len(self.density), np.nan), where=self.density > 0)


def delta_distribution(
    delta: np.ndarray,
    live: np.ndarray | None = None,
    *,
    bins: int = BINS,
    suppressed: float = 0.1,
    exaggerated: float = 0.9,
) -> DeltaDistribution:
    """Describe the deltas of one model.

    Parameters
    ----------
    delta : [K] in [0, 1].
    live : [K] bool; default all.
    bins : equal bins on [0, 1].
    suppressed, exaggerated : thresholds of the tails, both strict.

    Raises
    ------
    BlindspotError
        If a live delta is outside [0, 1] or no number.
    """
    values = alive(delta, live)
    if not ((values >= 0) & (values <= 1)).all():
        raise BlindspotError("Delta must lie in [0, 1] for every live concept: map effects through the sigmoid first.")
    counts, edges = np.histogram(values, bins=bins, range=(0.0, 1.0))
    total = max(len(values), 1)
    return DeltaDistribution(
        concepts=len(values),
        edges=edges,
        counts=counts,
        density=counts * bins / total,
        median=float(np.median(values)) if len(values) else float("nan"),
        skewness=skewness(values),
        suppressed=float(np.count_nonzero(values < suppressed) / total),
        exaggerated=float(np.count_nonzero(values > exaggerated) / total),
    )


def skewness(values: np.ndarray) -> float:
    """E[(v - mean)^3] / sd^3 over the given values; 0 when they do not differ by more than rounding."""
    values = np.asarray(values, np.float64)
    if len(values) < 2 or np.ptp(values) <= ROUNDING * np.abs(values).max():
        return 0.0
    centred = values - values.mean()
    return float(np.mean(centred**3) / np.mean(centred**2) ** 1.5)


def rank_concepts(delta: np.ndarray, gap: np.ndarray, live: np.ndarray | None = None) -> np.ndarray:
    """Live concepts from the most suppressed to the most exaggerated.

    Delta saturates, so equal deltas are ordered by the gap behind them, and equal gaps by concept.

    Parameters
    ----------
    delta, gap : [K].
    live : [K] bool; default all.
    """
    concepts = np.arange(len(delta)) if live is None else np.flatnonzero(live)
    return concepts[np.lexsort((np.asarray(gap)[concepts], np.asarray(delta)[concepts]))]


def alive(values: np.ndarray, live: np.ndarray | None) -> np.ndarray:
    """[..., live] float64, the values of the live concepts along the last axis."""
    values = np.asarray(values, np.float64)
    return values if live is None else values[..., np.asarray(live, bool)]
