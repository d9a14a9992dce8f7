"""The leading eigenvectors of Z^T Z by Lanczos, and how far two sources share them (sections D.5 and H).

Of large dictionaries Z^T Z is applied as Z^T (Z v) and never formed: one step costs one pass over the codes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import linalg

from engine.blindspots.cooccurrence import products
from engine.blindspots.rows import BLOCK, Rows, row_blocks
from engine.errors import BlindspotError

TOLERANCE = 1e-8
"""Relative error of the eigenvalues."""
DENSE = 4096
"""Concepts up to which Z^T Z is held as it is."""


class Spectrum(NamedTuple):
    """Leading eigenpairs of a co-occurrence matrix."""

    values: np.ndarray
    """[r] float64 eigenvalues, largest first, not negative; in units of code squared, summed over tokens."""
    vectors: np.ndarray
    """[K, r] float64 orthonormal eigenvectors; the entry of largest size is positive."""


def cooccurrence_spectrum(codes: Rows, count: int, step: int = BLOCK) -> Spectrum:
    """The `count` largest eigenvalues of Z^T Z with their eigenvectors.

    Parameters
    ----------
    codes : [rows, K], the rows of Z.
    count : eigenpairs; at most K.
    step : rows that are read at once.

    Raises
    ------
    BlindspotError
        If more eigenpairs are asked for than there are concepts.
    """
    concepts = codes.shape[1]
    if not 1 <= count <= concepts:
        raise BlindspotError(
            f"A dictionary of {concepts} concepts has no {count} eigenvalues: ask for 1 to {concepts}."
        )
    if concepts <= max(DENSE, 2 * count + 20):
        gram = products(codes, 0, concepts, step, whole=True)[0]
        operator: Any = linalg.aslinearoperator(gram)
    else:
        operator = linalg.LinearOperator((concepts, concepts), lambda v: _apply(codes, v, step), dtype=np.float64)
    if concepts <= 2 * count + 20:
        values, vectors = np.linalg.eigh(gram)
    else:
        start = np.random.default_rng(0).random(concepts)
        values, vectors = linalg.eigsh(operator, k=count, which="LA", tol=TOLERANCE, v0=start)
    order = np.argsort(-values, kind="stable")[:count]
    values, vectors = np.maximum(values[order], 0.0), vectors[:, order]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(count)]
    return Spectrum(values, vectors * np.where(largest < 0, -1.0, 1.0))


def _apply(codes: Rows, vector: np.ndarray, step: int) -> np.ndarray:
    """[K] Z^T (Z v) in one pass over the codes."""
    total = np.zeros(codes.shape[1])
    for _, block in row_blocks(codes, step):
        total += block.T @ (block @ vector)
    return total


def eigenvector_similarity(real: Spectrum, model: Spectrum) -> np.ndarray:
    """[r_real, r_model] |V_real^T V_model|, absolute cosines between the eigenvectors of two sources.

    Eigenvectors of nearly equal eigenvalues turn freely among each other, so a smeared diagonal need not mean a change
    (`subspace_overlap` does not see such turns).

    Raises
    ------
    BlindspotError
        If the sources have different dictionaries.
    """
    if len(real.vectors) != len(model.vectors):
        raise BlindspotError(
            f"Eigenvectors over {len(real.vectors)} and {len(model.vectors)} concepts cannot be compared: "
            "use one dictionary."
        )
    return np.minimum(np.abs(real.vectors.T @ model.vectors), 1.0)


def subspace_overlap(similarity: np.ndarray) -> np.ndarray:
    """[r] for m = 1 .. r: the share of the model's first m eigenvectors that lies in the span of the real first m.

    It is ||V_real[:, :m]^T V_model[:, :m]||_F^2 / m, the mean squared cosine of the principal angles: 1 for equal
    subspaces, m / K expected for random ones.
    """
    size = min(similarity.shape)
    squares = np.cumsum(np.cumsum(similarity[:size, :size] ** 2, axis=0), axis=1)
    return np.diag(squares) / np.arange(1, size + 1)
