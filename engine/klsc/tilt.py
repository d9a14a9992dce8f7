"""The exponential tilt q_beta ~ p exp(beta s): the law nearest to p, in KL, with a given mean score (Lemma D.4).

psi(beta) = log E_p exp(beta s) is its log-partition function; psi' is the tilt's mean score, psi'' its variance
(Remark D.5), so the mean increases in beta and beta(m) is the root of a monotone function.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import logsumexp

from engine.errors import BlindspotError
from engine.klsc.law import Atoms, expectation, weighted_scores

STEEPEST = 2.0**60
"""Largest beta x range of scores that is tried: beyond it a tilt cannot be told from its limit."""


class Calibration(NamedTuple):
    """The parameter of a law that was chosen for its mean score."""

    value: float
    """The tilt's beta, or the threshold."""
    mean: float
    """Mean score that it gives."""


def tilt(scores: Atoms, beta: float, log_weights: Atoms | None = None) -> Atoms:
    """The law q_beta ~ p exp(beta s) (eq. 9), as log-probabilities.

    Parameters
    ----------
    scores : finite scores of the atoms.
    beta : inverse temperature in 1 / unit of the score; 0 is p itself, negative values avoid the score.
    log_weights : of p; equal weights when None.

    Raises
    ------
    BlindspotError
        If scores, weights or beta are not numbers.
    """
    exponents, _ = _exponents(scores, beta, log_weights)
    return exponents - logsumexp(exponents)


def log_partition(scores: Atoms, beta: float, log_weights: Atoms | None = None) -> float:
    """psi(beta) = log E_p exp(beta s)."""
    exponents, shift = _exponents(scores, beta, log_weights)
    return float(logsumexp(exponents) + shift)


def tilted_mean(scores: Atoms, beta: float, log_weights: Atoms | None = None) -> float:
    """mu(beta) = psi'(beta), the mean score under the tilt."""
    return expectation(scores, tilt(scores, beta, log_weights))


def tilted_variance(scores: Atoms, beta: float, log_weights: Atoms | None = None) -> float:
    """psi''(beta), the variance of the score under the tilt."""
    log_q = tilt(scores, beta, log_weights)
    return expectation(np.square(np.asarray(scores) - expectation(scores, log_q)), log_q)


def tilt_speed(scores: Atoms, beta: float, log_weights: Atoms | None = None) -> float:
    """TV speed of the tilt path per unit of mean score, E|s - mu| / (2 Var s) under the tilt (Lemma D.12)."""
    log_q = tilt(scores, beta, log_weights)
    deviations = np.abs(np.asarray(scores) - expectation(scores, log_q))
    variance = expectation(np.square(deviations), log_q)
    if variance == 0:
        raise BlindspotError(f"At beta {beta:g} the tilt is a single score and has no speed: choose a smaller beta.")
    return expectation(deviations, log_q) / (2 * variance)


def calibrate_tilt(scores: Atoms, target: float, log_weights: Atoms | None = None) -> Calibration:
    """Find the beta whose tilt has mean score `target`, by bracketed root finding.

    A target below p's own mean gets a negative beta. (KLSC asks for a mean of at least m, so there p itself solves it.)

    Raises
    ------
    BlindspotError
        If no tilt has this mean: it is not strictly between the lowest and the highest score.
    """
    values, log_p = weighted_scores(scores, log_weights)
    values, log_p = values[log_p > -np.inf], log_p[log_p > -np.inf]
    low, high, own = float(values.min()), float(values.max()), expectation(values, log_p)
    if abs(target - own) <= 4 * np.finfo(float).eps * max(abs(low), abs(high)):
        return Calibration(0.0, own)
    if not low < target < high:
        raise BlindspotError(
            f"A mean score of {target:g} is out of reach: tilting moves it between {low:.6g} and {high:.6g}, "
            f"the lowest and the highest score, both excluded."
        )
    shares, wanted = (values - low) / (high - low), (target - low) / (high - low)

    def miss(steepness: float) -> float:
        exponents = log_p + steepness * shares
        weights = np.exp(exponents - exponents.max())
        return float(weights @ shares / weights.sum()) - wanted

    near, far = 0.0, math.copysign(1.0, target - own)
    while miss(far) * far < 0:
        near, far = far, 2 * far
        if abs(far) > STEEPEST:
            raise BlindspotError(
                f"A mean score of {target!r} is out of reach: it is too close to an end of the scores, "
                f"{low!r} or {high!r}, to be told from it."
            )
    beta = brentq(miss, near, far, xtol=1e-14, rtol=1e-14) / (high - low)
    return Calibration(beta, tilted_mean(values, beta, log_p))


def _exponents(scores: np.ndarray, beta: float, log_weights: np.ndarray | None) -> tuple[np.ndarray, float]:
    """log p + beta s - shift, none of which can overflow, and the shift."""
    values, log_p = weighted_scores(scores, log_weights)
    if not math.isfinite(beta):
        raise BlindspotError(f"The tilt's beta must be a finite number, not {beta}.")
    held = log_p > -np.inf
    top = float(values[held].max() if beta >= 0 else values[held].min())
    exponents = np.full(len(values), -np.inf)
    exponents[held] = log_p[held] + beta * (values[held] - top)
    return exponents, beta * top
