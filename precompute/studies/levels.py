"""A concept at growing activation: drawings at shares of what the best real images score, beside real ones alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.calibration import Trial
from engine.samplers.metrics import PriorReference
from engine.samplers.retrieval import Pool
from precompute.studies.subject import Listener, Subject, codes_mean, silence


class Level(NamedTuple):
    """One level of activation."""

    share: float
    """Of the best real images' mean score; 0: not pushed at all, whatever that scores."""
    target: float
    """The mean score to reach; NaN at share 0."""
    reached: bool
    """Whether the mean score is there; else the nearest drawing stands in."""
    strength: float
    score: float
    """Mean score."""
    score_error: float
    """Its standard error."""
    codes_score: float
    """Mean score of the final sparse codes."""
    real_score: float
    """Mean score of the real images beside."""
    diversity: float
    slope: float
    kid: float
    frechet: float
    """As in `engine.samplers.metrics.Quality`."""
    note: str
    """Why the level was not reached."""


class LevelSample(NamedTuple):
    """One drawn image of a level, and a real one."""

    share: float
    rank: int
    """Place within its level, the lowest score first."""
    score: float
    codes_score: float
    real_image: int
    """A real image of nearly the same score; no other sample of the level has it."""
    real_score: float


class Levels(NamedTuple):
    """Levels in growing order."""

    rows: list[Level]
    samples: list[LevelSample]
    """Level by level, in order of score."""
    images: list[Tensor]
    """[n, 3, H, W] of each level, in order of score."""


def draw_levels(
    subject: Subject,
    shares: Sequence[float],
    pool: Pool,
    yardstick: PriorReference,
    listener: Listener = silence,
) -> Levels:
    """Draw a concept at several shares of its best real images' mean score, all from the same noise.

    Parameters
    ----------
    subject
        The concept.
    shares
        0 or more each, in any order.
    pool
        The scores of all real images, at least as many as a level has samples.
    yardstick
        What the drawings are measured by.
    listener
        Given the name of a level, gives what hears of its steps.

    Raises
    ------
    BlindspotError
        If there is no share, one is negative or not a number, there are too few real images, or nothing can be drawn.
    Cancelled
        If the listener said so.
    """
    if not shares or not all(math.isfinite(share) and share >= 0 for share in shares):
        raise BlindspotError(f"Levels are one or more shares of 0 or above, not {list(shares)}.")
    if len(pool.images) < subject.order.count:
        raise BlindspotError(
            f"{subject.order.count} samples need as many real images beside them, and there are {len(pool.images)}: "
            "ask for fewer."
        )
    levels, strength = Levels([], [], []), None
    for share in sorted(set(shares)):
        hear = listener(f"level {share:.0%}")
        if share == 0:
            drawn, note = subject.draw(0.0, hear), ""
        else:
            drawn, note = subject.reach(share * subject.best, strength, hear)
        if drawn.strength > 0 and not note:
            strength = drawn.strength  # the next level needs a little more
        _add(levels, share, subject, drawn, note, pool, yardstick)
    return levels


def nearest_real(scores: np.ndarray, pool: Pool) -> np.ndarray:
    """Places in a pool [n], all different, with the least total distance to scores [n] (an optimal assignment)."""
    return linear_sum_assignment(np.abs(np.asarray(scores)[:, None] - pool.scores[None]))[1]


def _add(
    levels: Levels, share: float, subject: Subject, drawn: Trial, note: str, pool: Pool, yardstick: PriorReference
) -> None:
    """Put a level's drawing, in order of score, behind the others."""
    samples = drawn.samples
    order = samples.scores.argsort()
    images, scores = samples.images[order], samples.scores[order].cpu().double().numpy()
    with torch.no_grad():
        codes = subject.score.codes_score(images).tolist()
    places = nearest_real(scores, pool)
    real = pool.scores[places]
    levels.samples.extend(
        LevelSample(share, rank, *entry)
        for rank, entry in enumerate(
            zip(scores.tolist(), codes, pool.images[places].tolist(), real.tolist(), strict=True)
        )
    )
    levels.images.append(images)
    levels.rows.append(
        Level(
            share,
            share * subject.best if share else math.nan,
            not note,
            drawn.strength,
            drawn.mean,
            drawn.error,
            codes_mean(subject, samples),
            float(real.mean()),
            *yardstick.measure(images),
            note,
        )
    )
