"""How deltas are spread over concepts: histogram, tails and ranking, against frequency, and shared between models.

Sections 4.1, 4.3, 4.6 and D.3: 100 bins on [0, 1] with a logarithmic density axis. Only live concepts count: a dead one
is neutral by construction and would pile up at one half.

Frequency is the number of token codes of a concept in real images. A rare concept scatters more from sampling alone, so
a funnel is no finding by itself: the same bands of one real half against the other are the baseline to read it by.

A universal blindspot is beyond the threshold in every model; a specific one is beyond it in one model while every other
one is at least a margin inside, so that a concept near the threshold everywhere is neither.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.errors import BlindspotError

BINS = 100
ROUNDING = 1e-12
PERCENTILES = (5.0, 50.0, 95.0)
"""Of the frequency bands."""
MARGIN = 0.15
"""How far inside the threshold every other model is where one model alone has a blindspot."""


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
    suppressed: float = 0.1,
    exaggerated: float = 0.9,
) -> DeltaDistribution:
    """Describe the deltas of one model.

    Parameters
    ----------
    delta : [K] in [0, 1].
    live : [K] bool; default all.
    suppressed, exaggerated : thresholds of the tails, both strict.

    Raises
    ------
    BlindspotError
        If a live delta is outside [0, 1] or no number.
    """
    values = alive(delta, live)
    if not ((values >= 0) & (values <= 1)).all():
        raise BlindspotError("Delta must lie in [0, 1] for every live concept: map effects through the sigmoid first.")
    counts, edges = np.histogram(values, bins=BINS, range=(0.0, 1.0))
    total = max(len(values), 1)
    return DeltaDistribution(
        concepts=len(values),
        edges=edges,
        counts=counts,
        density=counts * BINS / total,
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


class FrequencyBands(NamedTuple):
    """Percentiles of misalignment in bins of frequency."""

    edges: np.ndarray
    """[bins + 1] frequencies, equally spaced in logarithm."""
    counts: np.ndarray
    """[bins] int64 concepts per bin."""
    bands: np.ndarray
    """[3, bins] percentiles of the values, low, middle and high; nan in empty bins."""
    spearman: float
    """Rank correlation of frequency with |value - 1/2|: below 0 where rare concepts are the misaligned ones."""

    @property
    def centres(self) -> np.ndarray:
        """[bins] geometric middle of each bin."""
        return np.sqrt(self.edges[:-1] * self.edges[1:])


def frequency_bands(
    fires: np.ndarray,
    values: np.ndarray,
    *,
    bins: int = 30,
) -> FrequencyBands:
    """Summarise values over concepts by how often the concepts fire in real images.

    Parameters
    ----------
    fires : [K] token codes above zero in real images; concepts that never fire there are left out.
    values : [K] delta, at the paper's setting sigmoid(relative / 0.4).
    bins : bins between the rarest and the most frequent concept.

    Raises
    ------
    BlindspotError
        If no concept fires.
    """
    fires, values = np.asarray(fires, np.float64), np.asarray(values, np.float64)
    shown = fires > 0
    if not shown.any():
        raise BlindspotError("No concept fires in the real images: measure their codes before asking for frequencies.")
    from scipy import stats  # takes a second to load, here only

    fires, values = fires[shown], values[shown]
    low, high = fires.min(), fires.max()
    edges = np.geomspace(low, high if high > low else 2 * low, bins + 1)
    place = np.clip(np.searchsorted(edges, fires, side="right") - 1, 0, bins - 1)
    bands = np.full((3, bins), np.nan)
    for number in np.unique(place):
        bands[:, number] = np.percentile(values[place == number], PERCENTILES)
    distance = np.abs(values - 0.5)
    varies = len(fires) > 1 and np.ptp(fires) > 0 and np.ptp(distance) > 0
    spearman = float(stats.spearmanr(fires, distance).statistic) if varies else float("nan")
    return FrequencyBands(edges, np.bincount(place, minlength=bins), bands, spearman)


class SharedBlindspots(NamedTuple):
    """Per concept: -1 where suppressed, 1 where exaggerated, 0 elsewhere."""

    universal: np.ndarray
    """[K] int8, in all models at once."""
    specific: np.ndarray
    """[models, K] int8, in this model and clearly in no other."""


def shared_blindspots(
    deltas: np.ndarray,
    live: np.ndarray | None = None,
    *,
    suppressed: float = 0.1,
    exaggerated: float = 0.9,
    margin: float = MARGIN,
) -> SharedBlindspots:
    """Sort the concepts into universal and specific blindspots.

    Parameters
    ----------
    deltas : [models, K], at least two models.
    live : [K] bool; default all. Dead concepts are neither.
    suppressed, exaggerated : thresholds, both strict.
    margin : how far inside the threshold every other model must be for a specific one.

    Raises
    ------
    BlindspotError
        For fewer than two models, where the words have no meaning.
    """
    deltas = np.asarray(deltas, np.float64)
    if deltas.ndim != 2 or len(deltas) < 2:
        raise BlindspotError("Universal and specific blindspots need at least two models: give deltas [models, K].")
    live = np.ones(deltas.shape[1], bool) if live is None else np.asarray(live, bool)
    universal = np.zeros(deltas.shape[1], np.int8)
    specific = np.zeros(deltas.shape, np.int8)
    for sign, beyond, inside in (
        (-1, deltas < suppressed, deltas >= suppressed + margin),
        (1, deltas > exaggerated, deltas <= exaggerated - margin),
    ):
        universal[beyond.all(axis=0) & live] = sign
        others_inside = inside.sum(axis=0) == len(deltas) - 1
        specific[beyond & others_inside & live] = sign
    return SharedBlindspots(universal, specific)
