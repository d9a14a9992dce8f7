"""How far a drawn image is from the real one of its pair, in concepts (paper 004, sections 4.4 and D.4).

With d = xi(x') - xi(x) over concepts: l2 = ||d||_2, and mean_delta = mean_k sigmoid(d_k / T). Small l2 marks
memorisation candidates (`memorisation.py` confirms them), large l2 failures. The two norms answer different questions:
l2 how much differs, mean_delta which way.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse, special

from engine.errors import BlindspotError

_CHUNK = 2048
"""Pairs at once: bounds the memory, does not touch the result."""


class Divergence(NamedTuple):
    """Divergence of every pair, in the order of the given rows."""

    l2: np.ndarray
    """[pairs] float64, in units of energy; 0 for images of equal energies."""
    mean_delta: np.ndarray
    """[pairs] float64 in (0, 1); 0.5 for images of equal energies."""


def pair_divergence(
    real: sparse.csr_matrix,
    model: sparse.csr_matrix,
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
        left, right = real[real_rows[part]].astype(np.float64), model[model_rows[part]].astype(np.float64)
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
