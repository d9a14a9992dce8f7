"""The hard constraint p(. | s > m): what dataset search shows, and the mass that it crowds at its own edge."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from engine.errors import BlindspotError
from engine.klsc.law import Atoms, expectation, log_probabilities, weighted_scores
from engine.klsc.tilt import Calibration


class TopK(NamedTuple):
    """The best of a pool."""

    k: int
    """How many."""
    mean: float
    """Their mean score."""


def threshold(scores: Atoms, cut: float, log_weights: Atoms | None = None) -> Atoms:
    """The law p(. | s > cut) (eq. 6), as log-probabilities, -inf at and below the cut.

    Parameters
    ----------
    scores : finite scores of the atoms.
    cut : threshold in the score's unit.
    log_weights : of p; equal weights when None.

    Raises
    ------
    BlindspotError
        If nothing scores above the cut.
    """
    values, log_p = weighted_scores(scores, log_weights)
    kept = np.where(values > cut, log_p, -np.inf)
    if not (kept > -np.inf).any():
        top = values[log_p > -np.inf].max()
        raise BlindspotError(f"Nothing scores above {cut:g}: choose a threshold below {top:.6g}, the highest score.")
    return log_probabilities(len(kept), kept)


def log_survival(scores: Atoms, cut: float, log_weights: Atoms | None = None) -> float:
    """log P(s > cut); -inf when nothing scores above."""
    values, log_p = weighted_scores(scores, log_weights)
    above = log_p[values > cut]
    return float(logsumexp(above)) if len(above) else -math.inf


def mean_above(scores: Atoms, cut: float, log_weights: Atoms | None = None) -> float:
    """E[s | s > cut]; raises as `threshold` does."""
    return expectation(scores, threshold(scores, cut, log_weights))


def boundary_mass(scores: Atoms, cut: float, margin: float, log_weights: Atoms | None = None) -> float:
    """BM = P(cut < s < cut + margin | s > cut), the share of what passes that barely does (Definition 2.3).

    `log_weights` are of the law in question, p or a tilt of it; raises as `threshold` does.
    """
    values, _ = weighted_scores(scores)
    return expectation(values < cut + margin, threshold(values, cut, log_weights))


def hazard(scores: Atoms, cut: float, width: float, log_weights: Atoms | None = None) -> float:
    """Mean hazard f(u) / P(s > u) over cut +- width / 2, per unit of score (Lemmas D.6 and D.7).

    The hazard is -d log P(s > u) / du, so its mean is a difference of two logarithms and no density has to be
    estimated. Boundary mass is hazard x margin to first order; a tilt's hazard is never above p's.

    Raises
    ------
    BlindspotError
        If nothing scores above the interval.
    """
    low, high = cut - width / 2, cut + width / 2
    tail = log_survival(scores, high, log_weights)
    if tail == -np.inf:
        raise BlindspotError(f"Nothing scores above {high:g}, where the hazard is asked for: choose a lower threshold.")
    return (log_survival(scores, low, log_weights) - tail) / width


def threshold_speed(scores: Atoms, cut: float, log_weights: Atoms | None = None) -> float:
    """TV speed of the threshold path per unit of mean score, 1 / E[s - cut | s > cut] (Lemma D.11)."""
    return 1 / (mean_above(scores, cut, log_weights) - cut)


def calibrate_threshold(scores: Atoms, target: float, log_weights: Atoms | None = None) -> Calibration:
    """Find the threshold above which the mean score is `target`, by bisection over the sorted scores.

    On n atoms E[s | s > m] moves in steps: the step nearest to the target is taken, its threshold half way between the
    two scores that it separates, and the mean that it gives is returned beside it.

    Raises
    ------
    BlindspotError
        If no threshold has this mean: it is below p's own or above the highest score.
    """
    values, log_p = weighted_scores(scores, log_weights)
    order = np.argsort(values)
    order = order[log_p[order] > -np.inf]
    values, log_p = values[order], log_p[order]
    first = np.flatnonzero(np.diff(values, prepend=-np.inf) > 0)
    means = _means_from(values, log_p)[first]
    slack = 1e-9 * max(abs(values[0]), abs(values[-1]))
    if not means[0] - slack <= target <= means[-1] + slack:
        raise BlindspotError(
            f"A mean score of {target:g} is out of reach: thresholds move it from {means[0]:.6g}, that of all scores, "
            f"to {means[-1]:.6g}, the highest score."
        )
    after = int(np.searchsorted(means, target).clip(0, len(means) - 1))
    nearest = after - (after > 0 and target - means[after - 1] < means[after] - target)
    lowest_kept = values[first[nearest]]
    just_below = np.nextafter(lowest_kept, -np.inf)
    if nearest == 0:
        return Calibration(float(just_below), float(means[0]))
    highest_dropped = values[first[nearest] - 1]
    middle = highest_dropped + (lowest_kept - highest_dropped) / 2
    return Calibration(float(min(middle, just_below)), float(means[nearest]))


def matching_top_k(scores: Atoms, target: float) -> TopK:
    """The k whose k best images have the mean score nearest to `target`; the larger of two that tie (appendix I.1).

    Raises
    ------
    BlindspotError
        If the target is below the pool's mean or above its best score.
    """
    values, _ = weighted_scores(scores)
    means = np.cumsum(np.sort(values)[::-1]) / np.arange(1, len(values) + 1)
    slack = 1e-9 * np.abs(values).max()
    if not means[-1] - slack <= target <= means[0] + slack:
        raise BlindspotError(
            f"A mean score of {target:g} is out of reach of this pool of {len(values)} images: its best have means "
            f"from {means[-1]:.6g} (all) to {means[0]:.6g} (the best one)."
        )
    k = len(means) - int(np.argmin(np.abs(means - target)[::-1]))
    return TopK(k, float(means[k - 1]))


def _means_from(values: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """[n] mean of values[i:], for sorted values; in log space, so that a far tail keeps its mean."""
    with np.errstate(divide="ignore"):
        heights = np.log(values - values[0])
    mass = np.logaddexp.accumulate(log_p[::-1])[::-1]
    moment = np.logaddexp.accumulate((log_p + heights)[::-1])[::-1]
    return np.maximum.accumulate(values[0] + np.exp(moment - mass))
