"""Precision, recall, density and coverage of generated images by k nearest neighbours.

Precision and recall: Kynkäänniemi et al. (2019), "Improved precision and recall metric". Density and coverage: Naeem et
al. (2020), "Reliable fidelity and diversity metrics". A ball around each image reaches to its k-th nearest other image
of the same set. These are what a reader knows beside FID; like FID, none of them says which concept is missing.

Distances are float64 and by brute force: copies put images exactly on a ball's edge, and float32 rounding, FAISS's
included, would leave such ties to chance. 10,000 images of 768 dimensions take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import sparse

from engine.errors import BlindspotError

Features = np.ndarray | sparse.csr_matrix
_CHUNK = 1024
_SLACK = 1e-10
"""Rounding of a squared distance, in units of the squared norms that it is a difference of."""


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
    real, model = (_float64(side) for side in (real, model))
    real_norms, model_norms = _norms(real), _norms(model)
    real_reach, model_reach = squared_radii(real, k), squared_radii(model, k)
    inside_real = np.zeros(model.shape[0], np.int64)
    recalled, covered = np.zeros(real.shape[0], bool), np.zeros(real.shape[0], bool)
    for rows, distance in _blocks(real, model, real_norms, model_norms):
        slack = _SLACK * (real_norms[rows, None] + model_norms[None, :])
        in_real_ball = distance <= real_reach[rows, None] + slack
        inside_real += in_real_ball.sum(axis=0)
        covered[rows] = in_real_ball.any(axis=1)
        recalled[rows] = (distance <= model_reach[None, :] + slack).any(axis=1)
    return Manifold(
        precision=float(np.mean(inside_real > 0)),
        recall=float(recalled.mean()),
        density=float(inside_real.mean() / k),
        coverage=float(covered.mean()),
    )


def squared_radii(features: Features, k: int) -> np.ndarray:
    """[n] squared distance of every image to its k-th nearest other image."""
    features = _float64(features)
    norms = _norms(features)
    radii = np.empty(features.shape[0])
    for rows, distance in _blocks(features, features, norms, norms):
        distance[np.arange(len(distance)), np.arange(rows.start, rows.start + len(distance))] = -1.0
        radii[rows] = np.partition(distance, k, axis=1)[:, k]
    return radii


def _blocks(
    left: Features, right: Features, left_norms: np.ndarray, right_norms: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
    """Some rows of `left` at a time with their squared distances to all of `right`."""
    transposed = right.T.tocsr() if sparse.issparse(right) else right.T
    for start in range(0, left.shape[0], _CHUNK):
        rows = slice(start, min(start + _CHUNK, left.shape[0]))
        product = left[rows] @ transposed
        product = product.toarray() if sparse.issparse(product) else np.asarray(product)
        yield rows, np.maximum(left_norms[rows, None] + right_norms[None, :] - 2 * product, 0.0)


def _float64(features: Features) -> Features:
    if sparse.issparse(features):
        return sparse.csr_matrix(features, dtype=np.float64)
    return np.asarray(features, np.float64)


def _norms(features: Features) -> np.ndarray:
    """[n] squared norms."""
    if sparse.issparse(features):
        return np.asarray(features.multiply(features).sum(axis=1)).ravel()
    return np.einsum("nd,nd->n", features, features)
