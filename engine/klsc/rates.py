"""How fast a constrained law changes: hazards, and the total variation gained per unit of mean score (D.2, D.4).

The survival function is all that hard thresholds need: their hazard is -d log P(s > m) / dm, so its mean over an
interval is a difference of two logarithms and no density has to be estimated.
"""

from __future__ import annotations

import numpy as np

from engine.errors import BlindspotError
from engine.klsc.law import expectation
from engine.klsc.threshold import log_survival, mean_above
from engine.klsc.tilt import tilt, tilted_mean


def hazard(scores: np.ndarray, cut: float, width: float, log_weights: np.ndarray | None = None) -> float:
    """Mean hazard f(u) / P(s > u) over cut +- width / 2, per unit of score (Lemmas D.6 and D.7).

    Boundary mass is hazard x margin to first order. With a tilt as `log_weights` this is the tilt's hazard, which is
    never above p's.

    Parameters
    ----------
    scores : [n].
    cut, width : centre and width of the interval, in the score's unit.
    log_weights : [n] of the law; equal weights when None.

    Raises
    ------
    BlindspotError
        If nothing scores above the interval.
    """
    return _accumulated_hazard(scores, cut - width / 2, cut + width / 2, log_weights) / width


def mean_residual_life(scores: np.ndarray, cut: float, log_weights: np.ndarray | None = None) -> float:
    """e(cut) = E[s - cut | s > cut], in the score's unit (eq. 79)."""
    return mean_above(scores, cut, log_weights) - cut


def threshold_speed(scores: np.ndarray, cut: float, log_weights: np.ndarray | None = None) -> float:
    """TV speed of the threshold path per unit of mean score, 1 / e(cut) (Lemma D.11)."""
    return 1 / mean_residual_life(scores, cut, log_weights)


def tilt_speed(scores: np.ndarray, beta: float, log_weights: np.ndarray | None = None) -> float:
    """TV speed of the tilt path per unit of mean score, E|s - mu| / (2 Var s) under the tilt (Lemma D.12)."""
    log_q = tilt(scores, beta, log_weights)
    deviations = np.abs(np.asarray(scores) - expectation(scores, log_q))
    variance = expectation(np.square(deviations), log_q)
    if variance == 0:
        raise BlindspotError(f"At beta {beta:g} the tilt is a single score and has no speed: choose a smaller beta.")
    return expectation(deviations, log_q) / (2 * variance)


def average_threshold_speed(
    scores: np.ndarray, low: float, high: float, log_weights: np.ndarray | None = None
) -> float:
    """Mean TV speed between the thresholds low < high, log P(s > low) / P(s > high) over the gain in mean (eq. 105)."""
    gained = mean_above(scores, high, log_weights) - mean_above(scores, low, log_weights)
    if gained <= 0:
        raise BlindspotError(f"Thresholds {low:g} and {high:g} keep the same scores: choose two that differ.")
    return _accumulated_hazard(scores, low, high, log_weights) / gained


def average_tilt_speed(
    scores: np.ndarray, low: float, high: float, log_weights: np.ndarray | None = None, *, order: int = 32
) -> float:
    """Mean TV speed between the tilts beta = low < high, by Gauss-Legendre quadrature in beta (eq. 107).

    Parameters
    ----------
    scores : [n].
    low, high : betas.
    log_weights : [n] of p; equal weights when None.
    order : nodes of the quadrature.
    """
    gained = tilted_mean(scores, high, log_weights) - tilted_mean(scores, low, log_weights)
    if gained <= 0:
        raise BlindspotError(f"The tilts at {low:g} and {high:g} have the same mean score: choose two that differ.")
    nodes, shares = np.polynomial.legendre.leggauss(order)
    fluctuations = [_fluctuation(scores, low + (high - low) * (node + 1) / 2, log_weights) for node in nodes]
    return float(shares @ fluctuations) * (high - low) / 4 / gained


def _fluctuation(scores: np.ndarray, beta: float, log_weights: np.ndarray | None) -> float:
    """E|s - mu(beta)| under the tilt."""
    log_q = tilt(scores, beta, log_weights)
    return expectation(np.abs(np.asarray(scores) - expectation(scores, log_q)), log_q)


def _accumulated_hazard(scores: np.ndarray, low: float, high: float, log_weights: np.ndarray | None) -> float:
    """Integral of the hazard from low to high, log P(s > low) / P(s > high)."""
    tail = log_survival(scores, high, log_weights)
    if tail == -np.inf:
        raise BlindspotError(f"Nothing scores above {high:g}, where the hazard is asked for: choose a lower threshold.")
    return log_survival(scores, low, log_weights) - tail
