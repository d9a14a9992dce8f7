"""The Frechet distance (FID) between two sets of features, also where there are more features than images.

    FID = |mu - nu|^2 + tr S + tr R - 2 tr (S R)^(1/2)

With S = A^T A and R = B^T B, the non-zero eigenvalues of S R are those of (A B^T)(A B^T)^T, so the last trace is the
sum of the singular values of A B^T. A is the centred features over sqrt(n - 1), [n, D]: in concept space (D = 32,000)
the matrix is n x m and no D x D covariance exists; where D < n, A is a square root of the covariance, [D, D]. Both give
the textbook value. With n < D the covariances are singular and finite samples bias FID upwards: compare sets
of equal size, and with the FID of one real half against the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse

from engine.errors import BlindspotError

Features = np.ndarray | sparse.csr_matrix
_CHUNK = 1024
"""Rows of the sparse product at once."""


class Frechet(NamedTuple):
    """A Frechet distance and its two parts."""

    distance: float
    """FID, in units of the feature squared; not negative."""
    mean: float
    """|mu - nu|^2, the part that a shift makes."""
    covariance: float
    """The rest: differences of spread."""


def frechet_distance(real: Features, model: Features) -> Frechet:
    """FID between two sets of features, dense (encoder space) or sparse (image energies, concept space).

    Parameters
    ----------
    real, model : [n, D] and [m, D], at least two rows each, both dense or both sparse.

    Raises
    ------
    BlindspotError
        If the features differ in dimension or a set has fewer than two images.
    """
    if real.shape[1] != model.shape[1] or min(real.shape[0], model.shape[0]) < 2:
        raise BlindspotError(
            f"FID needs two or more images of both sets in one feature space, not {real.shape} and {model.shape}."
        )
    means = [np.asarray(side.mean(axis=0, dtype=np.float64)).ravel() for side in (real, model)]
    if sparse.issparse(real):
        traces = [_sparse_trace(side, mean) for side, mean in zip((real, model), means, strict=True)]
        cross = _sparse_cross(real, model, means)
    else:
        factors = [_factor(np.asarray(side) - mean) for side, mean in zip((real, model), means, strict=True)]
        traces = [np.sum(factor**2) for factor in factors]
        cross = factors[0] @ factors[1].T
    shared = linalg.svdvals(cross, check_finite=False, overwrite_a=True).sum()
    shift = float(np.sum((means[0] - means[1]) ** 2))
    spread = max(float(sum(traces) - 2 * shared), 0.0)
    return Frechet(shift + spread, shift, spread)


def _factor(centred: np.ndarray) -> np.ndarray:
    """[min(n, D), D] A with A^T A the covariance: the features themselves, or the smaller triangle of their QR."""
    if len(centred) > centred.shape[1]:
        factor = linalg.qr(centred, mode="r", check_finite=False)[0][: centred.shape[1]]
    else:
        factor = centred
    return factor / np.sqrt(len(centred) - 1)


def _sparse_trace(features: sparse.csr_matrix, mean: np.ndarray) -> float:
    """Trace of the unbiased covariance."""
    n = features.shape[0]
    return (np.sum(np.square(features.data, dtype=np.float64)) - n * np.sum(mean**2)) / (n - 1)


def _sparse_cross(real: sparse.csr_matrix, model: sparse.csr_matrix, means: list[np.ndarray]) -> np.ndarray:
    """[n, m] (X - 1 mu^T)(Y - 1 nu^T)^T / sqrt((n - 1)(m - 1)) without centring, which would fill the zeros."""
    left, right = sparse.csr_matrix(real, dtype=np.float64), sparse.csr_matrix(model, dtype=np.float64)
    cross = np.empty((left.shape[0], right.shape[0]))
    transposed = right.T.tocsr()
    for start in range(0, left.shape[0], _CHUNK):
        cross[start : start + _CHUNK] = (left[start : start + _CHUNK] @ transposed).toarray()
    cross -= (left @ means[1])[:, None]
    cross -= (right @ means[0])[None, :]
    cross += means[0] @ means[1]
    cross /= np.sqrt((left.shape[0] - 1) * (right.shape[0] - 1))
    return cross
