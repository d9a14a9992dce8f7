"""Intervals of delta that hold at every sample size, and how many images an interval of a wanted width takes.

The corrected Theorem 4 of paper 004 (see `significance.hoeffding_interval`) bounds the gap; the sigmoid is monotone, so
the ends map to an interval of delta that is never wider than the Lipschitz form and much narrower near 0 and 1.

Backwards: around a gap g, delta's interval is `width` wide when the gap's half-width r solves, with a = g/T, b = r/T,

    sigmoid(a + b) - sigmoid(a - b) = sinh b / (cosh a + cosh b) = width,
    b = artanh(width) + arsinh(width cosh a / sqrt(1 - width^2)).

At g = 0, where the sigmoid is steepest, b = 2 artanh(width): the answer for a concept of which nothing is known yet.
"""

from __future__ import annotations

import numpy as np

from engine.blindspots.delta import delta_of_gap
from engine.blindspots.significance import Interval, hoeffding_interval, normal_quantile
from engine.errors import BlindspotError


def hoeffding_delta(
    gap: np.ndarray,
    n: int,
    span: np.ndarray | float,
    *,
    temperature: float = 0.8,
    level: float = 0.95,
    paired: bool = False,
) -> Interval:
    """The distribution-free interval of delta = sigmoid(gap / T).

    Parameters
    ----------
    gap : [K] gap of mean energies.
    n : images of each source, or pairs.
    span : width M of the interval that the energies lie in, known beforehand. The largest energy seen is a guess of it,
        and an interval built on a guess is as good as the guess.
    temperature, level : of delta and of the interval.
    paired : whether images of a pair depend on each other.
    """
    low, high = hoeffding_interval(gap, n, span, level=level, paired=paired)
    return Interval(delta_of_gap(low, temperature), delta_of_gap(high, temperature))


def gap_reach(width: float, gap: np.ndarray | float = 0.0, temperature: float = 0.8) -> np.ndarray:
    """Half-width of the gap's interval that gives delta's interval this width (equation above).

    Raises
    ------
    BlindspotError
        If the width is not between 0 and 1.
    """
    if not 0 < width < 1:
        raise BlindspotError(f"An interval of delta is between 0 and 1 wide, not {width}.")
    with np.errstate(over="ignore"):
        steep = width * np.cosh(np.asarray(gap, np.float64) / temperature) / np.sqrt(1 - width**2)
    return temperature * (np.arctanh(width) + np.arcsinh(steep))


def images_needed(
    width: float,
    deviation: np.ndarray | float,
    *,
    gap: np.ndarray | float = 0.0,
    temperature: float = 0.8,
    level: float = 0.95,
) -> np.ndarray:
    """How many pairs (images per source when unpaired) make delta's normal interval at most `width` wide.

    Parameters
    ----------
    width : wanted width of the interval of delta, in (0, 1).
    deviation : [K] standard deviation of one pair's difference, se * sqrt(n) of a pilot (`significance.measure_gap`
        gives se); unpaired, sqrt(variance of model + variance of real).
    gap : [K] the gap expected; default 0, the worst case.

    Returns
    -------
    ndarray
        [K] int64, at least 2.
    """
    ratio = normal_quantile(level) * np.asarray(deviation, np.float64) / gap_reach(width, gap, temperature)
    return _whole(ratio**2, 2)


def images_needed_hoeffding(
    width: float,
    span: np.ndarray | float,
    *,
    gap: np.ndarray | float = 0.0,
    temperature: float = 0.8,
    level: float = 0.95,
    paired: bool = False,
) -> np.ndarray:
    """The same for `hoeffding_delta`: a promise for any energies within `span`, and so many more images.

    Returns
    -------
    ndarray
        [K] int64, at least 1.
    """
    factor = (2 if paired else 1) * np.log(2 / (1 - level))
    return _whole(factor * (np.asarray(span) / gap_reach(width, gap, temperature)) ** 2, 1)


def _whole(images: np.ndarray, least: int) -> np.ndarray:
    largest = np.iinfo(np.int64).max // 2
    return np.clip(np.ceil(images - 1e-9), least, largest).astype(np.int64)
