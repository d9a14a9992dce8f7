"""A strength sweep: what pushing harder towards a score buys, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.metrics import PriorReference
from precompute.studies.subject import Listener, Subject, codes_mean, silence


class Strength(NamedTuple):
    """What one strength gives; the fields up to `frechet` are means over its samples."""

    strength: float
    score: float
    score_error: float
    """Standard error of the mean score."""
    codes_score: float
    """Score of the final sparse codes."""
    diversity: float
    slope: float
    kid: float
    frechet: float
    """As in `engine.samplers.metrics.Quality`."""
    seconds: float
    """Per sample."""
    note: str
    """Why nothing could be drawn; the numbers are NaN then."""


class Sweep(NamedTuple):
    """Strengths in growing order."""

    rows: list[Strength]
    images: list[Tensor | None]
    """[n, 3, H, W] of each row; None where nothing could be drawn."""


def sweep_strengths(
    subject: Subject,
    strengths: Sequence[float],
    yardstick: PriorReference,
    listener: Listener = silence,
) -> Sweep:
    """Draw a concept at several strengths, from the same noise.

    Parameters
    ----------
    subject
        The concept.
    strengths
        In any order.
    yardstick
        What the drawings are measured by.
    listener
        Given the name of a row, gives what hears of its steps.

    Raises
    ------
    BlindspotError
        If there is no strength, one is not a number, or nothing could be drawn at any.
    Cancelled
        If the listener said so.
    """
    if not strengths or not all(map(math.isfinite, strengths)):
        raise BlindspotError(f"A sweep needs one or more finite strengths, not {list(strengths)}.")
    rows, images = [], []
    for strength in sorted(set(strengths)):
        try:
            drawn = subject.draw(strength, listener(f"strength {strength:g}"))
        except BlindspotError as error:
            rows.append(Strength(strength, *[math.nan] * 8, note=str(error)))
            images.append(None)
            continue
        samples = drawn.samples
        rows.append(
            Strength(
                strength,
                drawn.mean,
                drawn.error,
                codes_mean(subject, samples),
                *yardstick.measure(samples.images),
                drawn.seconds / len(samples.images),
                "",
            )
        )
        images.append(samples.images)
    if all(made is None for made in images):
        raise BlindspotError(rows[0].note)
    return Sweep(rows, images)
