"""Task injection q ~ p exp(beta s + eta f): what a second objective does to what is shown (section 2.2.3).

At a matched mean of s, a larger eta raises the mean of f and bends the law away from the intrinsic tilt. How far at
least is the Cramer bound of Theorem E.3; how far exactly is the KL of the law that meets both means.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from engine.errors import BlindspotError
from engine.klsc.law import Atoms, expectation, kl, weighted_scores
from engine.klsc.tilt import calibrate_tilt, tilt

STEEPEST = 1e6
"""Largest eta x range of task scores that is tried: beyond it a task picks single atoms."""


class Bound(NamedTuple):
    """A lower bound on the distortion and the strength where it is attained."""

    distortion: float
    """KL in nats to the intrinsic tilt."""
    eta: float
    """Strength of the task at the supremum, in 1 / unit of f; 0 when the task asks for nothing."""


class Injection(NamedTuple):
    """The law that meets both means."""

    beta: float
    """Strength of the score."""
    eta: float
    """Strength of the task."""
    distortion: float
    """delta(m, r; c), KL in nats to the intrinsic tilt of the same mean score (Definition 2.5)."""


def inject(scores: Atoms, task: Atoms, beta: float, eta: float, log_weights: Atoms | None = None) -> Atoms:
    """The law q ~ p exp(beta s + eta f), as log-probabilities, for scores s and task scores f (eq. 14)."""
    return tilt(task, eta, tilt(scores, beta, log_weights))


def distortion_bound(task: Atoms, level: float, log_q: Atoms) -> Bound:
    """sup over eta >= 0 of eta r - log E_q exp(eta f): no law near q with E f >= r is nearer in KL (Theorem E.3).

    Parameters
    ----------
    task : task scores f.
    level : r, the mean of f that the task demands.
    log_q : log-probabilities of the intrinsic tilt.

    Raises
    ------
    BlindspotError
        If no law on these atoms has E f = r: the distortion would be infinite.
    """
    values, log_q = weighted_scores(task, log_q)
    if level <= expectation(values, log_q):
        return Bound(0.0, 0.0)
    eta = calibrate_tilt(values, level, log_q).value
    return Bound(kl(tilt(values, eta, log_q), log_q), eta)


def calibrate_injection(
    scores: Atoms, task: Atoms, target: float, level: float, log_weights: Atoms | None = None
) -> Injection:
    """Find beta and eta >= 0 with E s = target and E f >= level, and the distortion that the task costs.

    With s held at its mean, E f increases in eta (its derivative is the variance of f that s does not explain), so this
    is one bracketed root finding inside another. Where the intrinsic tilt already has E f >= level, eta is 0.

    Raises
    ------
    BlindspotError
        If the target is out of reach, or the level is at this target.
    """
    values, log_p = weighted_scores(scores, log_weights)
    goals, _ = weighted_scores(task, log_p)
    spread = float(np.ptp(goals[log_p > -np.inf])) or 1.0

    def law(eta: float) -> tuple[float, np.ndarray]:
        lured = tilt(goals, eta, log_p)
        beta = calibrate_tilt(values, target, lured).value
        return beta, tilt(values, beta, lured)

    def miss(eta: float) -> float:
        return expectation(goals, law(eta)[1]) - level

    beta, intrinsic = law(0.0)
    if expectation(goals, intrinsic) >= level:
        return Injection(beta, 0.0, 0.0)
    near, far = 0.0, 1 / spread
    while miss(far) < 0:
        near, far = far, 2 * far
        if far * spread > STEEPEST:
            raise BlindspotError(
                f"A mean task score of {level:g} is out of reach where the mean score is {target:g}: "
                f"there it goes up to about {level + miss(near):.6g}."
            )
    eta = brentq(miss, near, far, xtol=1e-12, rtol=1e-12)
    beta, both = law(eta)
    return Injection(beta, eta, kl(both, intrinsic))
