"""Matched baselines: what every statistic says when nothing but chance differs.

The images of one source are split at random into two halves, and one half plays the model. Whatever a divergence, a
share of unique entries or an FID is between the halves, a model has to exceed it before it means anything.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.errors import BlindspotError


class Halves(NamedTuple):
    """Two disjoint sets of images of one source, of equal size."""

    first: np.ndarray
    """[images // 2] rows, rising."""
    second: np.ndarray
    """[images // 2] rows, rising."""


def split_halves(images: int, generator: np.random.Generator) -> Halves:
    """Split a source at random; an odd image is left out.

    Raises
    ------
    BlindspotError
        For fewer than four images, which leave no spread within a half.
    """
    if images < 4:
        raise BlindspotError(f"A source of {images} images has no two halves to compare: give four or more.")
    order = generator.permutation(images)
    half = images // 2
    return Halves(np.sort(order[:half]), np.sort(order[half : 2 * half]))


def token_rows(images: np.ndarray, tokens: int) -> np.ndarray:
    """[images * tokens] rows of a source's token codes that belong to the given images, in their order."""
    return (np.asarray(images)[:, None] * tokens + np.arange(tokens)).ravel()
