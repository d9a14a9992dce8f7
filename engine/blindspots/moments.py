"""Sufficient statistics of image energies: enough for every estimator of delta and its interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse


class Moments(NamedTuple):
    """Number of images, sum and sum of squares of their energies, per concept."""

    images: int
    """Number of images, n; those in which a concept is silent count with energy 0."""
    sum: np.ndarray
    """[K] float64, sum of energies."""
    sum_sq: np.ndarray
    """[K] float64, sum of squared energies."""

    @property
    def mean(self) -> np.ndarray:
        """[K] mean energy E_k; zero when there is no image."""
        return self.sum / max(self.images, 1)

    @property
    def variance(self) -> np.ndarray:
        """[K] unbiased variance of the energies; infinite below two images, where nothing is known of it."""
        if self.images < 2:
            return np.full_like(self.sum, np.inf)
        return np.maximum(self.sum_sq - self.sum * self.mean, 0.0) / (self.images - 1)

    @classmethod
    def of(cls, energies: sparse.csr_matrix) -> Moments:
        """The moments of image energies [images, K]."""
        values = energies.data.astype(np.float64)
        concepts = energies.shape[1]
        total = np.bincount(energies.indices, values, minlength=concepts)
        return cls(energies.shape[0], total, np.bincount(energies.indices, values**2, minlength=concepts))
