"""The hard constraint p(. | s > m): what dataset search shows, and the mass that it crowds at its own edge."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp

from engine.errors import BlindspotError
from engine.klsc.law import expectation, log_probabilities, weighted_scores
from engine.klsc.tilt import Calibration


def threshold(scores: np.ndarray, cut: float, log_weights: np.ndarray | None = None) -> np.ndarray:
    """The law p(. | s > cut) (paper 000, eq. 6).

    Parameters
    ----------
    scores : [n] finite scores of the atoms.
    cut : threshold in the score's unit.
    log_weights : [n] of p; equal weights when None.

    Returns
    -------
    [n] log-probabilities, -inf at and below the cut.

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


def log_survival(scores: np.ndarray, cut: float, log_weights: np.ndarray | None = None) -> float:
    """log P(s > cut) for scores [n]; -inf when nothing scores above."""
    values, log_p = weighted_scores(scores, log_weights)
    above = log_p[values > cut]
    return float(logsumexp(above)) if len(above) else -math.inf


def mean_above(scores: np.ndarray, cut: float, log_weights: np.ndarray | None = None) -> float:
    """E[s | s > cut] for scores [n]; raises as `threshold` does."""
    return expectation(scores, threshold(scores, cut, log_weights))


def boundary_mass(scores: np.ndarray, cut: float, margin: float, log_weights: np.ndarray | None = None) -> float:
    """BM = P(cut < s < cut + margin | s > cut), the share of what passes that barely does (Definition 2.3).

    Parameters
    ----------
    scores : [n].
    cut, margin : threshold and width of the shell above it, in the score's unit.
    log_weights : [n] of the law in question (p, or a tilt of it); equal weights when None.

    Raises
    ------
    BlindspotError
        If nothing scores above the cut.
    """
    values, _ = weighted_scores(scores)
    return expectation(values < cut + margin, threshold(values, cut, log_weights))


def calibrate_threshold(scores: np.ndarray, target: float, log_weights: np.ndarray | None = None) -> Calibration:
    """Find the threshold above which the mean score is `target`, by bisection over the sorted scores.

    On n atoms E[s | s > m] moves in steps: the step nearest to the target is taken, its threshold half way between the
    two scores that it separates, and the mean that it gives is returned beside it.

    Parameters
    ----------
    scores : [n].
    target : wanted mean score, in the score's unit.
    log_weights : [n] of p; equal weights when None.

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


def _means_from(values: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    """[n] mean of values[i:], for sorted values; in log space, so that a far tail keeps its mean."""
    with np.errstate(divide="ignore"):
        heights = np.log(values - values[0])
    mass = np.logaddexp.accumulate(log_p[::-1])[::-1]
    moment = np.logaddexp.accumulate((log_p + heights)[::-1])[::-1]
    return np.maximum.accumulate(values[0] + np.exp(moment - mass))
