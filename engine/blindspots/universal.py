"""Blindspots that every model has, and those of one model alone.

Universal: beyond the threshold in every model. Specific: beyond it in one model while every other one is at least a
margin inside (DESIGN section 4), so that a concept near the threshold everywhere is neither.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.errors import BlindspotError

MARGIN = 0.15


class SharedBlindspots(NamedTuple):
    """Per concept: -1 where suppressed, 1 where exaggerated, 0 elsewhere."""

    universal: np.ndarray
    """[K] int8, in all models at once."""
    specific: np.ndarray
    """[models, K] int8, in this model and clearly in no other."""


def shared_blindspots(
    deltas: np.ndarray,
    live: np.ndarray | None = None,
    *,
    suppressed: float = 0.1,
    exaggerated: float = 0.9,
    margin: float = MARGIN,
) -> SharedBlindspots:
    """Sort the concepts into universal and specific blindspots.

    Parameters
    ----------
    deltas : [models, K], at least two models.
    live : [K] bool; default all. Dead concepts are neither.
    suppressed, exaggerated : thresholds, both strict.
    margin : how far inside the threshold every other model must be for a specific one.

    Raises
    ------
    BlindspotError
        For fewer than two models, where the words have no meaning.
    """
    deltas = np.asarray(deltas, np.float64)
    if deltas.ndim != 2 or len(deltas) < 2:
        raise BlindspotError("Universal and specific blindspots need at least two models: give deltas [models, K].")
    live = np.ones(deltas.shape[1], bool) if live is None else np.asarray(live, bool)
    universal = np.zeros(deltas.shape[1], np.int8)
    specific = np.zeros(deltas.shape, np.int8)
    for sign, beyond, inside in (
        (-1, deltas < suppressed, deltas >= suppressed + margin),
        (1, deltas > exaggerated, deltas <= exaggerated - margin),
    ):
        universal[beyond.all(axis=0) & live] = sign
        others_inside = inside.sum(axis=0) == len(deltas) - 1
        specific[beyond & others_inside & live] = sign
    return SharedBlindspots(universal, specific)
