"""Strength and activation: what pushing harder towards a concept gains, what it costs, and real images beside it.

`sweep` draws at given strengths, `levels` at given shares of what the best real images score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from engine.errors import BlindspotError
from engine.figures.images import SIDE, Block, Row, image_grid
from engine.figures.samplers import level_strips, strength_curves
from engine.samplers.metrics import PriorReference
from engine.samplers.retrieval import Pool, score_pool
from precompute.studies.base import ConceptSubject, Progress, Study, StudyInputs, concept_subject, image_block, silent


class StrengthRow(NamedTuple):
    """The drawings of one strength; the fields up to `frechet` are means over its samples."""

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
    """As in `metrics.Quality`."""
    seconds: float
    """Per sample."""
    note: str
    """Why nothing could be drawn; the numbers are NaN then."""


class Sweep(NamedTuple):
    """Strengths in growing order."""

    rows: list[StrengthRow]
    images: list[Tensor | None]
    """[n, 3, H, W] of each row; None where nothing could be drawn."""


def sweep_strengths(
    subject: ConceptSubject, strengths: Sequence[float], reference: PriorReference, progress: Progress = silent
) -> Sweep:
    """Draw a concept at several strengths, in any order, from the same noise.

    Raises
    ------
    BlindspotError
        If there is no strength, one is not a number, or nothing could be drawn at any.
    Cancelled
        If `progress` cancelled.
    """
    if not strengths or not all(map(math.isfinite, strengths)):
        raise BlindspotError(f"A sweep needs one or more finite strengths, not {list(strengths)}.")
    found = Sweep([], [])
    for strength in sorted(set(strengths)):
        try:
            trial = subject.draw(strength, progress(f"strength {strength:g}"))
        except BlindspotError as error:
            found.rows.append(StrengthRow._make([strength, *[math.nan] * 8, str(error)]))
            found.images.append(None)
            continue
        images = trial.samples.images
        quality = reference.measure(images)
        codes_score, seconds = subject.codes_score(trial.samples), trial.seconds / len(images)
        found.rows.append(StrengthRow(strength, trial.mean, trial.error, codes_score, *quality, seconds, ""))
        found.images.append(images)
    if all(images is None for images in found.images):
        raise BlindspotError(found.rows[0].note)
    return found


def sweep_study(inputs: StudyInputs, strengths: Sequence[float]) -> Study:
    """The study `sweep`; errors as in `sweep_strengths` and `concept_subject`."""
    subject = concept_subject(inputs.atlas, inputs.request, *inputs.placement)
    found = sweep_strengths(subject, strengths, inputs.reference(subject), inputs.progress)
    table = pd.DataFrame(found.rows)
    blocks = [
        image_block(images, f"score {row.score:.3g} ± {row.score_error:.1g}\ndiversity {row.diversity:.2f}")
        for row, images in zip(found.rows, found.images, strict=True)
    ]
    columns = [f"strength {row.strength:g}" for row in found.rows]
    grid = image_grid(f"{inputs.name} at growing strength", columns, [Row("", blocks)])
    figure = strength_curves(table, concept=inputs.name, best=subject.best, subtitle=inputs.subtitle)
    settings = inputs.settings(subject, strengths=sorted(set(strengths)))
    return Study("sweep", inputs.atlas, settings, {"table": table}, figure, grid)


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
    """As in `metrics.Quality`."""
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
    subject: ConceptSubject,
    shares: Sequence[float],
    pool: Pool,
    reference: PriorReference,
    progress: Progress = silent,
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
    reference
        What the drawings are compared with.
    progress
        Given the name of a level, returns what is called after its steps.

    Raises
    ------
    BlindspotError
        If there is no share, one is negative or not a number, there are too few real images, or nothing can be drawn.
    Cancelled
        If `progress` cancelled.
    """
    if not shares or not all(math.isfinite(share) and share >= 0 for share in shares):
        raise BlindspotError(f"Levels are one or more shares of 0 or above, not {list(shares)}.")
    if len(pool.images) < subject.request.count:
        raise BlindspotError(
            f"{subject.request.count} samples need as many real images beside them, and there are {len(pool.images)}: "
            "ask for fewer."
        )
    levels, strength = Levels([], [], []), None
    for share in sorted(set(shares)):
        on_step = progress(f"level {share:.0%}")
        if share == 0:
            trial, note = subject.draw(0.0, on_step), ""
        else:
            trial, note = subject.reach(share * subject.best, strength, on_step)
        if trial.strength > 0 and not note:
            strength = trial.strength  # the next level needs a little more
        order = trial.samples.scores.argsort()
        images, scores = trial.samples.images[order], trial.samples.scores[order].cpu().double().numpy()
        with torch.no_grad():
            codes = subject.score.codes_score(images).tolist()
        places = nearest_real(scores, pool)
        real = pool.scores[places]
        columns = zip(scores.tolist(), codes, pool.images[places].tolist(), real.tolist(), strict=True)
        levels.samples.extend(LevelSample(share, rank, *values) for rank, values in enumerate(columns))
        levels.images.append(images)
        levels.rows.append(
            Level(
                share, share * subject.best if share else math.nan, not note, trial.strength, trial.mean, trial.error,
                subject.codes_score(trial.samples), float(real.mean()), *reference.measure(images), note,
            )
        )  # fmt: skip
    return levels


def nearest_real(scores: np.ndarray, pool: Pool) -> np.ndarray:
    """Places in a pool [n], all different, with the least total distance to scores [n] (an optimal assignment)."""
    return linear_sum_assignment(np.abs(np.asarray(scores)[:, None] - pool.scores[None]))[1]


def levels_study(inputs: StudyInputs, shares: Sequence[float]) -> Study:
    """The study `levels`; errors as in `draw_levels` and `concept_subject`."""
    atlas, subject = inputs.atlas, concept_subject(inputs.atlas, inputs.request, *inputs.placement)
    reference = inputs.reference(subject)
    pool = score_pool(atlas, subject.score, subject.models.encoder.spec, subject.models.device)
    found = draw_levels(subject, shares, pool, reference, inputs.progress)
    table, samples = pd.DataFrame(found.rows), pd.DataFrame(found.samples)
    shown = np.linspace(0, inputs.request.count - 1, SIDE * SIDE).round().astype(int).tolist()
    drawn, real = [], []
    for row, images in zip(found.rows, found.images, strict=True):
        short = "" if row.reached else f"\nout of reach: {row.target:.3g}"
        drawn.append(image_block(images[shown], f"score {row.score:.3g} ± {row.score_error:.1g}{short}"))
        beside = samples.loc[samples["share"] == row.share, "real_image"].to_numpy()[shown]
        real.append(Block([atlas.image(int(image)) for image in beside], f"score {row.real_score:.3g}"))
    columns = [f"{row.share:.0%} of the best real" if row.share else "not pushed" for row in found.rows]
    rows = [Row("drawn, the lowest score first", drawn), Row("real images of nearly the same scores", real)]
    figure = level_strips(table, samples, concept=inputs.name, subtitle=inputs.subtitle)
    grid = image_grid(f"{inputs.name} at growing activation", columns, rows)
    settings = inputs.settings(subject, shares=sorted(set(shares)))
    return Study("levels", atlas, settings, {"table": table, "samples": samples}, figure, grid)
