"""Distributions on n atoms, as arrays of normalised log-probabilities: expectations and the distances between them."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from engine.errors import BlindspotError

Atoms = Float[np.ndarray, " n"]
"""One number per atom: its score, log-weight or log-probability."""


def log_probabilities(n: int, log_weights: Atoms | None = None) -> Atoms:
    """Normalise log-weights, so that their exponentials sum to 1; None means equal weights, -inf no weight.

    Raises
    ------
    BlindspotError
        If there is no atom, the shape is wrong, a weight is not a number, or none is positive.
    """
    if n < 1:
        raise BlindspotError("There are no scores: give at least one.")
    if log_weights is None:
        return np.full(n, -math.log(n))
    weights = np.asarray(log_weights, np.float64)
    if weights.shape != (n,):
        raise BlindspotError(f"{n} scores come with log-weights of shape {weights.shape}: give one log-weight a score.")
    total = logsumexp(weights)
    if not math.isfinite(total):
        raise BlindspotError("The log-weights must be finite, or -inf for no weight, and not all of them -inf.")
    return weights - total


def weighted_scores(scores: Atoms, log_weights: Atoms | None = None) -> tuple[Atoms, Atoms]:
    """Check scores and normalise their log-weights: (float64 scores, log-probabilities).

    Raises
    ------
    BlindspotError
        If the scores are not a list of finite numbers, or the weights do not fit them.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise BlindspotError(f"Scores must be one list of finite numbers; these have shape {values.shape}.")
    return values, log_probabilities(len(values), log_weights)


def expectation(values: Atoms, log_q: Atoms) -> float:
    """Mean of the values under log-probabilities log_q."""
    return float(np.exp(log_q) @ np.asarray(values, np.float64))


def total_variation(log_q: Atoms, log_p: Atoms) -> float:
    """TV(q, p) = 1/2 sum |q - p|, in [0, 1], of two laws on the same atoms (Definition B.3)."""
    return min(1.0, float(np.abs(np.exp(log_q) - np.exp(log_p)).sum() / 2))


def kl(log_q: Atoms, log_p: Atoms) -> float:
    """KL(q || p) in nats of two laws on the same atoms; inf where p lacks an atom of q (Definition B.2)."""
    held = np.asarray(log_q) > -np.inf
    log_q, log_p = np.asarray(log_q)[held], np.asarray(log_p)[held]
    return max(0.0, float(np.exp(log_q) @ (log_q - log_p)))


def effective_sample_size(log_weights: Atoms) -> float:
    """1 / sum w^2 of the normalised weights: n when they are equal, 1 when one atom takes all."""
    log_q = log_probabilities(len(log_weights), log_weights)
    return float(np.clip(np.exp(-logsumexp(2 * log_q)), 1, len(log_q)))
