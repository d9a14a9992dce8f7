"""Which n of a schedule's levels a sampler visits, as diffusers' schedulers choose them.

Every rule returns [n] level numbers, descending. `leading`, `trailing` and `linspace` are those of arXiv 2305.08891,
Table 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SPACINGS = ("leading", "trailing", "linspace")
KARRAS_RHO = 7.0
SILENT = 2.0**-24
"""Stands in for the signal of a level that has none, as in diffusers."""


def evenly(total: int, n: int, spacing: str, offset: int = 0) -> np.ndarray:
    """n of `total` levels at even distances; `offset` is added to those of `leading`, as far as there is room."""
    if spacing == "linspace":
        return np.linspace(0, total - 1, n).round()[::-1]
    if spacing == "trailing":
        return np.round(total - np.arange(n) * (total / n)) - 1
    levels = np.arange(n)[::-1] * (total // n)
    return levels + min(offset, total - 1 - levels[0])


def distilled(total: int, n: int, known: int) -> np.ndarray:
    """n of the `known` levels that a latent consistency model was distilled at (arXiv 2310.04378, section 4.3)."""
    ladder = np.arange(known, 0, -1) * (total // known) - 1
    return ladder[np.floor(np.linspace(0, known, n, endpoint=False)).astype(np.int64)]


def karras(abar: Sequence[float], n: int) -> np.ndarray:
    """The levels nearest to sigmas whose 1/7th powers are even (Karras et al. 2022, eq. 5)."""
    signal = np.maximum(abar, SILENT)
    sigmas = np.sqrt((1 - signal) / signal)
    low, high = sigmas[0] ** (1 / KARRAS_RHO), sigmas[-1] ** (1 / KARRAS_RHO)
    wanted = np.linspace(high, low, n) ** KARRAS_RHO
    return np.interp(np.log(wanted), np.log(sigmas), np.arange(len(sigmas))).round()
