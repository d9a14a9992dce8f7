"""Misalignment against frequency: are rare concepts the ones that models get wrong? (paper 004, section 4.6)

Frequency is the number of token codes of a concept in real images. A rare concept scatters more from sampling alone, so
a funnel is no finding by itself: the same bands of one real half against the other are the baseline to read it by.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from engine.errors import BlindspotError

PERCENTILES = (5.0, 50.0, 95.0)


class FrequencyBands(NamedTuple):
    """Percentiles of misalignment in bins of frequency."""

    edges: np.ndarray
    """[bins + 1] frequencies, equally spaced in logarithm."""
    counts: np.ndarray
    """[bins] int64 concepts per bin."""
    bands: np.ndarray
    """[3, bins] percentiles of the values, low, middle and high; nan in empty bins."""
    spearman: float
    """Rank correlation of frequency with |value - centre|: below 0 where rare concepts are the misaligned ones."""

    @property
    def centres(self) -> np.ndarray:
        """[bins] geometric middle of each bin."""
        return np.sqrt(self.edges[:-1] * self.edges[1:])


def frequency_bands(
    fires: np.ndarray,
    values: np.ndarray,
    *,
    bins: int = 30,
    centre: float = 0.5,
    percentiles: tuple[float, float, float] = PERCENTILES,
) -> FrequencyBands:
    """Summarise values over concepts by how often the concepts fire in real images.

    Parameters
    ----------
    fires : [K] token codes above zero in real images; concepts that never fire there are left out.
    values : [K] delta, at the paper's setting sigmoid(relative / 0.4).
    bins : bins between the rarest and the most frequent concept.
    centre : the value of agreement: 0.5 for delta, 0 for an effect.
    percentiles : of the bands.

    Raises
    ------
    BlindspotError
        If no concept fires.
    """
    fires, values = np.asarray(fires, np.float64), np.asarray(values, np.float64)
    shown = fires > 0
    if not shown.any():
        raise BlindspotError("No concept fires in the real images: measure their codes before asking for frequencies.")
    fires, values = fires[shown], values[shown]
    low, high = fires.min(), fires.max()
    edges = np.geomspace(low, high if high > low else 2 * low, bins + 1)
    place = np.clip(np.searchsorted(edges, fires, side="right") - 1, 0, bins - 1)
    bands = np.full((3, bins), np.nan)
    for number in np.unique(place):
        bands[:, number] = np.percentile(values[place == number], percentiles)
    distance = np.abs(values - centre)
    varies = len(fires) > 1 and np.ptp(fires) > 0 and np.ptp(distance) > 0
    spearman = float(stats.spearmanr(fires, distance).statistic) if varies else float("nan")
    return FrequencyBands(edges, np.bincount(place, minlength=bins), bands, spearman)
