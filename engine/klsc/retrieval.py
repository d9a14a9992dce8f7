"""Retrieval from a finite pool: soft weights, how many images they amount to, and the hard top-K that matches them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from engine.errors import BlindspotError
from engine.klsc.law import log_probabilities, weighted_scores
from engine.klsc.tilt import tilt


class TopK(NamedTuple):
    """The best of a pool."""

    k: int
    """How many."""
    mean: float
    """Their mean score."""


def retrieval_weights(scores: np.ndarray, beta: float) -> np.ndarray:
    """Weights [n] of a pool with scores [n] under the tilt, exp(beta s_i) / sum_j exp(beta s_j) (paper 000, eq. 17).

    As beta grows they become uniform over the best images, and nothing else is ever shown (Lemma F.1).
    """
    return np.exp(tilt(scores, beta))


def effective_sample_size(log_weights: np.ndarray) -> float:
    """1 / sum w^2 of the normalised weights [n]: n when they are equal, 1 when one image takes all."""
    log_q = log_probabilities(len(log_weights), log_weights)
    return float(np.clip(np.exp(-logsumexp(2 * log_q)), 1, len(log_q)))


def matching_top_k(scores: np.ndarray, target: float) -> TopK:
    """The k whose k best images have the mean score nearest to `target`; the larger of two that tie (appendix I.1).

    Parameters
    ----------
    scores : [n] scores of the pool.
    target : wanted mean score, in the score's unit.

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
