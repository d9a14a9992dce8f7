"""The scalar metrics that a reader knows: Frechet distance, and precision, recall, density and coverage.

    FD = |mu - nu|^2 + tr S + tr R - 2 tr (S R)^(1/2)

With S = A^T A and R = B^T B, the non-zero eigenvalues of S R are those of (A B^T)(A B^T)^T, so the last trace is the
sum of the singular values of A B^T. A is the centred features over sqrt(n - 1), [n, D]: in concept space (D = 32,000)
the matrix is n x m and no D x D covariance exists; where D < n, A is a square root of the covariance, [D, D]. Both give
the textbook value. With n < D the covariances are singular and finite samples bias it upwards: compare sets
of equal size, and with the distance of one real half against the other.

Precision and recall: Kynkäänniemi et al. (2019), "Improved precision and recall metric". Density and coverage: Naeem et
al. (2020), "Reliable fidelity and diversity metrics". A ball around each image reaches to its k-th nearest other image
of the same set. Distances are float64 and by brute force: copies put images exactly on a ball's edge, and float32
rounding, FAISS's included, would leave such ties to chance. 10,000 images of 768 dimensions take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, sparse

from engine.errors import BlindspotError

Features = np.ndarray | sparse.csr_matrix
"""[images, D], dense (encoder space) or sparse (image energies, concept space)."""
_CHUNK = 1024
"""Rows of a product at once."""
_DENSE = 2048
"""Dimensions up to which covariances of sparse features are formed."""
_SLACK = 1e-10
"""Rounding of a squared distance, in units of the squared norms that it is a difference of."""


class Frechet(NamedTuple):
    """A Frechet distance and its two parts."""

    distance: float
    """In units of the feature squared; not negative."""
    mean: float
    """|mu - nu|^2, the part that a shift makes."""
    covariance: float
    """The rest: differences of spread."""


def frechet_distance(real: Features, model: Features) -> Frechet:
    """Frechet distance between two sets of features, dense (encoder space) or sparse (image energies, concept space).

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
            "A Frechet distance needs two or more images of both sets in one feature space, not "
            f"{real.shape} and {model.shape}."
        )
    means = [np.asarray(side.mean(axis=0, dtype=np.float64)).ravel() for side in (real, model)]
    if sparse.issparse(real) and real.shape[1] > _DENSE:
        left, right = sparse.csr_matrix(real, dtype=np.float64), sparse.csr_matrix(model, dtype=np.float64)
        traces = [_sparse_trace(side, mean) for side, mean in zip((left, right), means, strict=True)]
        cross = _sparse_cross(left, right, means)
    else:
        factors = [_factor(side, mean) for side, mean in zip((real, model), means, strict=True)]
        traces = [np.sum(factor**2) for factor in factors]
        cross = factors[0] @ factors[1].T
    shared = linalg.svdvals(cross, check_finite=False, overwrite_a=True).sum()
    shift = float(np.sum((means[0] - means[1]) ** 2))
    spread = max(float(sum(traces) - 2 * shared), 0.0)
    return Frechet(shift + spread, shift, spread)


class Manifold(NamedTuple):
    """How a generated set covers the real one."""

    precision: float
    """Share of generated images inside a real ball: are they realistic?"""
    recall: float
    """Share of real images inside a generated ball: is everything real reached?"""
    density: float
    """Mean number of real balls around a generated image, over k; may exceed 1."""
    coverage: float
    """Share of real balls that hold a generated image; outliers among the generated ones cannot raise it."""


def manifold_metrics(real: Features, model: Features, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage.

    Parameters
    ----------
    real, model : [n, D] and [m, D] features, dense (encoder embeddings) or sparse (image energies).
    k : neighbour that the balls reach to; 5 in Naeem et al., 3 in Kynkäänniemi et al.

    Raises
    ------
    BlindspotError
        If the features differ in dimension or a set has k images or fewer.
    """
    if real.shape[1] != model.shape[1] or min(real.shape[0], model.shape[0]) <= k:
        raise BlindspotError(
            f"Precision and recall with k = {k} need more than {k} images of both sets in one feature space, "
            f"not {real.shape} and {model.shape}."
        )
    real_norms, model_norms = _norms(real), _norms(model)
    real_reach, model_reach = squared_radii(real, k), squared_radii(model, k)
    inside_real = np.zeros(model.shape[0], np.int64)
    recalled, covered = np.zeros(real.shape[0], bool), np.zeros(real.shape[0], bool)
    for rows, columns, distance in _blocks(real, model, real_norms, model_norms):
        slack = _SLACK * (real_norms[rows, None] + model_norms[None, columns])
        in_real_ball = distance <= real_reach[rows, None] + slack
        inside_real[columns] += in_real_ball.sum(axis=0)
        covered[rows] |= in_real_ball.any(axis=1)
        recalled[rows] |= (distance <= model_reach[None, columns] + slack).any(axis=1)
    return Manifold(
        precision=float(np.mean(inside_real > 0)),
        recall=float(recalled.mean()),
        density=float(inside_real.mean() / k),
        coverage=float(covered.mean()),
    )


def squared_radii(features: Features, k: int) -> np.ndarray:
    """[n] squared distance of every image to its k-th nearest other image."""
    norms, count = _norms(features), features.shape[0]
    nearest = np.full((count, k + 1), np.inf)
    for rows, columns, distance in _blocks(features, features, norms, norms):
        if rows == columns:
            np.fill_diagonal(distance, -1.0)
        joined = np.concatenate([nearest[rows], distance], axis=1)
        nearest[rows] = np.partition(joined, k, axis=1)[:, : k + 1]
    return nearest.max(axis=1)


def _factor(features: Features, mean: np.ndarray) -> np.ndarray:
    """[min(n, D), D] A with A^T A the covariance: the centred features, or the smaller triangle of their QR.

    The triangle is that of the features so far above the next block's, so that no copy of all of them is needed.
    """
    count, dim = features.shape
    factor = _dense(features[: min(count, dim)]) - mean
    for start in range(dim, count, _CHUNK):
        joined = np.concatenate([factor, _dense(features[start : start + _CHUNK]) - mean])
        factor = linalg.qr(joined, mode="r", check_finite=False)[0][:dim]
    return factor / np.sqrt(count - 1)


def _dense(features: Features) -> np.ndarray:
    return np.asarray(features, np.float64) if isinstance(features, np.ndarray) else features.toarray()


def _sparse_trace(features: sparse.csr_matrix, mean: np.ndarray) -> float:
    """Trace of the unbiased covariance."""
    n = features.shape[0]
    return (np.sum(np.square(features.data, dtype=np.float64)) - n * np.sum(mean**2)) / (n - 1)


def _sparse_cross(left: sparse.csr_matrix, right: sparse.csr_matrix, means: list[np.ndarray]) -> np.ndarray:
    """[n, m] (X - 1 mu^T)(Y - 1 nu^T)^T / sqrt((n - 1)(m - 1)) without centring, which would fill the zeros."""
    cross = np.empty((left.shape[0], right.shape[0]))
    transposed = right.T.tocsr()
    for start in range(0, left.shape[0], _CHUNK):
        cross[start : start + _CHUNK] = (left[start : start + _CHUNK] @ transposed).toarray()
    cross -= (left @ means[1])[:, None]
    cross -= (right @ means[0])[None, :]
    cross += means[0] @ means[1]
    cross /= np.sqrt((left.shape[0] - 1) * (right.shape[0] - 1))
    return cross


def _blocks(
    left: Features, right: Features, left_norms: np.ndarray, right_norms: np.ndarray
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Some rows of `left` and some of `right` at a time, with the squared distances between them."""
    for columns in _chunks(right):
        transposed = _float64(right[columns]).T
        for rows in _chunks(left):
            product: Any = _float64(left[rows]) @ transposed
            product = product if isinstance(product, np.ndarray) else product.toarray()
            yield rows, columns, np.maximum(left_norms[rows, None] + right_norms[None, columns] - 2 * product, 0.0)


def _chunks(features: Features) -> list[slice]:
    count = features.shape[0]
    return [slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]


def _float64(features: Features) -> Features:
    if sparse.issparse(features):
        return sparse.csr_matrix(features, dtype=np.float64)
    return np.asarray(features, np.float64)


def _norms(features: Features) -> np.ndarray:
    """[n] squared norms."""
    norms = np.empty(features.shape[0])
    for rows in _chunks(features):
        some = _float64(features[rows])
        squares = some.multiply(some).sum(axis=1) if sparse.issparse(some) else np.einsum("nd,nd->n", some, some)
        norms[rows] = np.asarray(squares).ravel()
    return norms
