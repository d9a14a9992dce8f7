"""What post-training changed: the datapoint divergence of two models on the same captions (paper 004, section 4.5).

Both models drew the same captions, so every caption is its own control: the tests are on the differences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from engine.blindspots.significance import student_p
from engine.errors import BlindspotError

BINS = 60


class PostTraining(NamedTuple):
    """Divergence before and after, over the captions that both models drew."""

    pairs: int
    """Captions, n."""
    edges: np.ndarray
    """[bins + 1] edges of both histograms."""
    counts: np.ndarray
    """[2, bins] int64 captions per bin, before and after."""
    medians: tuple[float, float]
    """Median divergence before and after."""
    spreads: tuple[float, float]
    """Interquartile range before and after."""
    change: float
    """Mean of after - before; below 0 the second model is closer to reality."""
    low: float
    """Lower end of the paired Student interval of the change."""
    high: float
    """Upper end."""
    p: float
    """Two-sided paired t-test."""
    p_wilcoxon: float
    """Wilcoxon's signed-rank test: the same question without trusting means of heavy tails."""
    effect: float
    """Cohen's d_z, change over the standard deviation of the differences; 0 when nothing changed at all."""
    closer: float
    """Share of captions where the second model is the closer one, ties counted half."""


def compare_divergence(before: np.ndarray, after: np.ndarray, *, bins: int = BINS, level: float = 0.95) -> PostTraining:
    """Compare the per-pair divergence of two models.

    Parameters
    ----------
    before, after : [pairs] divergence (l2, or |mean_delta - 0.5|) of the same captions in the same order.
    bins : of the two histograms, over the common range.
    level : coverage of the interval.

    Raises
    ------
    BlindspotError
        If the two do not cover the same captions, or fewer than two.
    """
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if before.shape != after.shape or before.ndim != 1 or len(before) < 2:
        raise BlindspotError(
            f"A paired comparison needs the same two or more captions from both models, not {before.shape} "
            f"and {after.shape} divergences: keep the pairs that both have."
        )
    both = np.stack([before, after])
    edges = np.histogram_bin_edges(both, bins)
    counts = np.stack([np.histogram(side, edges)[0] for side in both])
    quartiles = np.percentile(both, (25, 50, 75), axis=1)
    difference = after - before
    change, spread = float(difference.mean()), float(difference.std(ddof=1))
    error = spread / np.sqrt(len(difference))
    reach = float(stats.t.ppf(0.5 + level / 2, len(difference) - 1)) * error
    return PostTraining(
        pairs=len(difference),
        edges=edges,
        counts=counts,
        medians=(float(quartiles[1, 0]), float(quartiles[1, 1])),
        spreads=(float(quartiles[2, 0] - quartiles[0, 0]), float(quartiles[2, 1] - quartiles[0, 1])),
        change=change,
        low=change - reach,
        high=change + reach,
        p=float(student_p(change, error, len(difference) - 1)),
        p_wilcoxon=float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0,
        effect=change / spread if spread > 0 else float(np.sign(change)) * (np.inf if change else 0.0),
        closer=float(np.mean(difference < 0) + np.mean(difference == 0) / 2),
    )
