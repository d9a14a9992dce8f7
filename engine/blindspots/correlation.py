"""How alike models are in what they miss: Pearson and Spearman over concepts (sections 4.2 and D.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.blindspots.distribution import alive
from engine.blindspots.significance import normal_quantile
from engine.errors import BlindspotError

METHODS = ("pearson", "spearman")
_FIELLER = 1.06
"""Variance of Fisher's z of Spearman's rho, times n - 3 (Fieller, Hartley and Pearson 1957)."""


class Correlation(NamedTuple):
    """Correlation of every two models over live concepts."""

    concepts: int
    """Live concepts, n."""
    matrix: np.ndarray
    """[models, models] r; nan where a model does not vary."""
    low: np.ndarray
    """[models, models] lower end of the interval."""
    high: np.ndarray
    """[models, models] upper end."""


def correlate_models(
    values: np.ndarray, live: np.ndarray | None = None, *, method: str = "pearson", level: float = 0.95
) -> Correlation:
    """Correlate the models' `delta` or `relative` over live concepts.

    The interval is Fisher's and takes concepts for independent; they fire together, so the true doubt is larger.

    Parameters
    ----------
    values : [models, K] delta, or relative (the one the authors correlate).
    live : [K] bool; default all.
    method : `pearson`, or `spearman` (Pearson of the average ranks: unmoved by the sigmoid, which only saturates).
    level : coverage of the interval.

    Raises
    ------
    BlindspotError
        If the method is unknown.
    """
    if method not in METHODS:
        raise BlindspotError(f"There is no correlation {method!r}: choose one of {', '.join(METHODS)}.")
    values = np.atleast_2d(alive(values, live))
    if method == "spearman":
        from scipy import stats  # takes a second to load, here only

        values = stats.rankdata(values, axis=1)
    matrix = _pearson(values)
    count = values.shape[1]
    spread = np.sqrt((_FIELLER if method == "spearman" else 1.0) / (count - 3)) if count > 3 else np.inf
    reach = normal_quantile(level) * spread
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.arctanh(matrix)
        return Correlation(count, matrix, np.tanh(z - reach), np.tanh(z + reach))


def _pearson(values: np.ndarray) -> np.ndarray:
    """[models, models]; nan where a model does not vary."""
    matrix = np.full((len(values), len(values)), np.nan)
    varying = np.flatnonzero(np.ptp(values, axis=1) > 0) if values.shape[1] > 1 else np.zeros(0, int)
    if len(varying):
        matrix[np.ix_(varying, varying)] = np.corrcoef(values[varying])
        matrix[varying, varying] = 1.0
    return matrix
