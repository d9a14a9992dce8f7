"""How far a drawn image is from the real one of its pair, in concepts (sections 4.4, 4.5 and D.4).

With d = xi(x') - xi(x) over concepts: l2 = ||d||_2, and mean_delta = mean_k sigmoid(d_k / T). The two norms answer
different questions: l2 how much differs, mean_delta which way. Large l2 marks failures, small l2 memorisation
candidates.

A small divergence can also mean that both images are plain. So each candidate's similarity to its nearest real image is
held against how near real images are to each other: p is the share of real images whose nearest OTHER real image is at
least as similar. If drawn images were fresh draws from reality, p would be uniform (a conformal p-value), so one in a
hundred at most would have a p below 0.01. Real images with duplicates in the corpus make p larger: the test errs on the
side of innocence there.

What post-training changed is asked of two models that drew the same captions: every caption is its own control, and the
tests are on the differences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse, special

from engine.blindspots.rows import Rows, take_rows
from engine.blindspots.significance import student_p, student_quantile
from engine.errors import BlindspotError

BINS = 60
"""Of the histograms of `compare_divergence`."""
_CHUNK = 1024
"""Pairs at once: bounds the memory, does not touch the result."""


class Divergence(NamedTuple):
    """Divergence of every pair, in the order of the given rows."""

    l2: np.ndarray
    """[pairs] float64, in units of energy; 0 for images of equal energies."""
    mean_delta: np.ndarray
    """[pairs] float64 in (0, 1); 0.5 for images of equal energies."""


def pair_divergence(
    real: Rows,
    model: Rows,
    real_rows: np.ndarray,
    model_rows: np.ndarray,
    *,
    live: np.ndarray | None = None,
    temperature: float = 0.8,
) -> Divergence:
    """Measure every pair; the cost is the number of energies above zero.

    Parameters
    ----------
    real, model : [images, K] image energies.
    real_rows, model_rows : [pairs] rows of the two that belong to the same pair.
    live : [K] bool, the concepts that count; default all. A dead concept would pull mean_delta towards 0.5.
    temperature : T of mean_delta.

    Raises
    ------
    BlindspotError
        If the two sources have different dictionaries or the rows do not pair up.
    """
    if real.shape[1] != model.shape[1] or len(real_rows) != len(model_rows):
        raise BlindspotError(
            f"Pairs need one dictionary and two rows each, not {real.shape[1]} and {model.shape[1]} concepts with "
            f"{len(real_rows)} and {len(model_rows)} rows: measure both sources in the same run."
        )
    weight = np.ones(real.shape[1]) if live is None else np.asarray(live, np.float64)
    l2 = np.zeros(len(real_rows))
    mean_delta = np.full(len(real_rows), 0.5)
    for start in range(0, len(real_rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        left, right = take_rows(real, real_rows[part]), take_rows(model, model_rows[part])
        left, right = left.astype(np.float64), right.astype(np.float64)
        difference = (right - left).tocsr()
        row = np.repeat(np.arange(difference.shape[0]), np.diff(difference.indptr))
        counted = weight[difference.indices]
        squares = np.bincount(row, difference.data**2 * counted, minlength=difference.shape[0])
        away = (special.expit(difference.data / temperature) - 0.5) * counted
        l2[part] = np.sqrt(squares)
        mean_delta[part] += np.bincount(row, away, minlength=difference.shape[0]) / max(weight.sum(), 1)
    return Divergence(l2, mean_delta)


def failures(l2: np.ndarray, count: int) -> np.ndarray:
    """The `count` pairs of largest divergence, worst first; of equal ones the earlier pair first."""
    return np.argsort(-np.asarray(l2), kind="stable")[:count]


class Leading(NamedTuple):
    """Some concepts with their energies in both images of a pair."""

    concepts: np.ndarray
    """[n] concept ids, leading first."""
    real: np.ndarray
    """[n] float32 energy in the real image."""
    model: np.ndarray
    """[n] float32 energy in the drawn image."""


class LeadingConcepts(NamedTuple):
    """What a pair shows, three ways."""

    real: Leading
    """By energy in the real image."""
    model: Leading
    """By energy in the drawn image."""
    changed: Leading
    """By absolute difference: the terms that make up the l2."""


def leading_concepts(real: sparse.csr_matrix, model: sparse.csr_matrix, count: int) -> LeadingConcepts:
    """The concepts that lead in each image of one pair, and those that differ most.

    Parameters
    ----------
    real, model : [1, K] energies of the two images.
    count : concepts per list; fewer where fewer have energy.
    """
    concepts = np.union1d(real.indices, model.indices)
    left, right = (np.asarray(side[:, concepts].todense()).ravel() for side in (real, model))
    lists = []
    for key in (left, right, np.abs(right - left)):
        order = np.argsort(-key, kind="stable")[:count]
        order = order[key[order] > 0]
        lists.append(Leading(concepts[order], left[order], right[order]))
    return LeadingConcepts(*lists)


def memorisation_p(
    similarity: Float[np.ndarray, " images"], natural: Float[np.ndarray, " real"]
) -> Float[np.ndarray, " images"]:
    """How rarely a real image has another one as near as each drawn image has its nearest real one.

    Parameters
    ----------
    similarity : cosine of each drawn image to the real image nearest to it, over the whole real corpus.
    natural : cosine of each real image to its nearest other real image.

    Returns
    -------
    ndarray
        p, at least 1 / (real images + 1); small means a copy.

    Raises
    ------
    BlindspotError
        If there is no real image to compare with.
    """
    if not len(natural):
        raise BlindspotError("Memorisation is judged against the real images' own neighbours: give at least one.")
    ordered = np.sort(np.asarray(natural, np.float64))
    as_near = len(ordered) - np.searchsorted(ordered, np.asarray(similarity, np.float64), side="left")
    return (1 + as_near) / (1 + len(ordered))


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
    from scipy import stats  # takes a second to load, here only

    both = np.stack([before, after])
    edges = np.histogram_bin_edges(both, bins)
    counts = np.stack([np.histogram(side, edges)[0] for side in both])
    quartiles = np.percentile(both, (25, 50, 75), axis=1)
    difference = after - before
    change, spread = float(difference.mean()), float(difference.std(ddof=1))
    error = spread / np.sqrt(len(difference))
    reach = float(student_quantile(len(difference) - 1, level)) * error
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
