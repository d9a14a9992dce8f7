"""Task injection: samples of p exp(beta s + eta f), for a score s that explains and a task f that pleases.

Resembling a given image or fitting a text looks harmless and makes pictures that people like better; but at the same
mean of s every bit of f moves the law away from what the concept alone would show (EnergyDPS, arXiv:2605.17504, section
2.2.3). This study reports how far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.errors import BlindspotError
from engine.figures.images import Block, Row, image_grid
from engine.figures.samplers import drift_table, object_drift
from engine.klsc.injection import distortion_bound
from engine.klsc.tilt import calibrate_tilt, tilt
from engine.samplers.base import Sampler, Score
from engine.samplers.calibration import sample_calibrated
from engine.samplers.metrics import prior_images
from engine.samplers.records import to_pil
from engine.samplers.registry import SamplerSettings, TaskSettings, create
from engine.samplers.tasks import TaskInjection, reference_image, task_of, with_room
from engine.vision.encoder import Encoder
from precompute.studies.base import Progress, Study, StudyInputs, concept_subject, drawn_by, image_block, silent

SHARES = (0.25, 0.5, 1.0, 2.0)
"""Ratios when none are named, in units of the target: what a task is worth must be seen beside the score."""


class DriftRow(NamedTuple):
    """What serving a task does, at one ratio."""

    ratio: float
    """eta / beta."""
    strength: float
    """beta, at which the mean score is the same as without the task; the unit is the sampler's own."""
    score: float
    """Mean s."""
    score_error: float
    """Its standard error."""
    task: float
    """Mean f."""
    task_error: float
    """Its standard error."""
    drift: float
    """|e - e_0| / |e_0| of the other concepts' mean energies e, e_0 without the task; at ratio 0 that of other noise:
    what chance makes of it."""
    bound: float
    """KL in nats that any law with these means is at least away from the intrinsic tilt (Theorem E.3), by the prior's
    own samples; NaN where those reach neither."""


class Drift(NamedTuple):
    """Ratios in the order given, after ratio 0."""

    rows: list[DriftRow]
    images: list[Tensor | None]
    """[n, 3, H, W] of each row; None where the score was out of reach."""


def measure_drift(
    factory: Callable[[float, float], Sampler],
    score: Score,
    task: Score,
    energies: Callable[[Tensor], np.ndarray],
    target: float,
    ratios: Sequence[float],
    *,
    prior: Float[Tensor, "m 3 height width"],
    start: float = 0.3,
    n: int = 8,
    seed: int = 0,
    progress: Progress = silent,
) -> Drift:
    """Raise the weight of a task while the mean score stays, and measure what else changes.

    Every ratio has the same noise and a strength of its own, see `calibrate_strength`. Where the task does not let the
    score reach its mean, the rest of the row is NaN.

    Parameters
    ----------
    factory
        Strength and ratio to sampler; the ratio is for a cap on s + ratio f.
    score, task
        s and f.
    energies
        Images [n, 3, H, W] to energies [n, K] of the concepts that are not meant to change.
    target
        The mean of s.
    ratios
        Values of eta / beta, without 0, which is always the first row.
    prior
        Images of the prior itself, for the bound.
    start, n, seed
        As `start`, `count` and `seed` in `sample_calibrated`.
    progress
        Given the name of a ratio, returns what is called after its steps.

    Raises
    ------
    BlindspotError
        If the target is out of reach without the task.
    Cancelled
        If `progress` cancelled.
    """
    with torch.no_grad():
        scores, levels = (function(prior).double().cpu().numpy() for function in (score, task))
    found, before = Drift([], []), None
    for ratio in (0.0, *ratios):

        def injected(strength: float, ratio: float = ratio) -> Sampler:
            return TaskInjection(factory(strength, ratio), task, ratio)

        try:
            samples, calibrated = sample_calibrated(
                injected, score, target, count=n, start=start, seed=seed, on_step=progress(f"ratio {ratio:.3g}")
            )
        except BlindspotError:
            if before is None:
                raise
            found.rows.append(DriftRow(ratio, *[math.nan] * 7))
            found.images.append(None)
            continue
        mean = energies(samples.images).mean(axis=0)
        if before is None:
            before = mean
            mean = energies(injected(calibrated.strength).sample(score, n, seed + 1).images).mean(axis=0)
        with torch.no_grad():
            level = task(samples.images).double().cpu().numpy()
        change = float(np.linalg.norm(mean - before) / np.linalg.norm(before))
        error = float(level.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
        bound = least_distortion(scores, levels, calibrated.mean, float(level.mean()))
        reached = (calibrated.strength, calibrated.mean, calibrated.standard_error)
        found.rows.append(DriftRow(ratio, *reached, float(level.mean()), error, change, bound))
        found.images.append(samples.images)
    return found


def least_distortion(scores: np.ndarray, task: np.ndarray, target: float, level: float) -> float:
    """The bound of Theorem E.3 in nats, by a pool of the prior's samples with scores s and f [m].

    NaN where the pool has no law with the mean scores `target` and `level`.
    """
    try:
        intrinsic = tilt(scores, calibrate_tilt(scores, target).value)
        return distortion_bound(task, level, intrinsic).distortion
    except BlindspotError:
        return math.nan


def other_energies(encoder: Encoder, dictionary: Dictionary, concepts: Sequence[int]) -> Callable[[Tensor], np.ndarray]:
    """Energies [n, K] of images, the sum of codes over all tokens, with 0 for the concepts that are meant to change."""

    @torch.no_grad()
    def measure(images: Tensor) -> np.ndarray:
        codes = dictionary.encode(encoder(images).flat().flatten(0, 1))
        energies = torch.zeros(len(images), dictionary.concepts, device=codes.values.device)
        each = codes.indices.reshape(len(images), -1).long()
        energies.scatter_add_(1, each, codes.values.float().reshape(len(images), -1))
        energies[:, list(concepts)] = 0
        return energies.cpu().numpy()

    return measure


def concept_drift(
    inputs: StudyInputs, serving: TaskSettings, ratios: Sequence[float] | None = None, target: float | None = None
) -> Drift:
    """Measure what happens to a concept's drawings when they should resemble an image, or fit a text, as well.

    Parameters
    ----------
    inputs
        The samples of the prior give the bound.
    serving
        The image to resemble, or the text to fit, and by what.
    ratios
        As in `measure_drift`; a task's values lie between -1 and 1, so a ratio is in units of the score. None:
        `SHARES` of the target.
    target
        The mean score to hold; that of the best real images when None.

    Raises
    ------
    BlindspotError
        As `concept_subject`; if the score is out of reach, a ratio is not a number other than 0, there is no such
        image, or no encoder that could compare images with a text.
    Cancelled
        If the progress cancelled.
    """
    request, progress = inputs.request, inputs.progress
    serving.check()
    if not serving.given:
        raise BlindspotError("A task is needed: give an image to resemble or a text to fit.")
    subject = concept_subject(inputs.atlas, request, *inputs.placement)
    models = subject.models
    if target is None:
        target = subject.best
    if ratios is None:
        ratios = [share * target for share in SHARES]
    if not all(math.isfinite(ratio) and ratio for ratio in ratios):
        raise BlindspotError(f"Ratios are finite numbers other than 0, not {list(ratios)}.")
    task = task_of(models, serving)
    assert task is not None
    base: SamplerSettings = request.towards(target)

    def factory(strength: float, ratio: float) -> Sampler:
        return with_room(create(request.method, models, replace(base, strength=strength)), task, ratio)

    prior = prior_images(models, request.steps, inputs.prior_samples, request.seed + 1, progress("prior"))
    energies = other_energies(models.encoder, models.dictionary, [request.concept])
    return measure_drift(
        factory, subject.score, task, energies, target, ratios, prior=prior, start=request.strength, n=request.count,
        seed=request.seed, progress=progress,
    )  # fmt: skip


def injection_study(
    inputs: StudyInputs, serving: TaskSettings, ratios: Sequence[float] | None, target: float | None
) -> Study:
    """The study `injection`; errors as in `concept_drift`."""
    atlas, count, models = inputs.atlas, inputs.request.count, inputs.models()
    found = concept_drift(inputs, serving, ratios, target)
    title, like = f"{inputs.name} should also fit “{serving.text}”", serving.like
    if like is not None:
        like = f"image {like}" if like.isdecimal() else Path(like).name
        title = f"{inputs.name} should also resemble {like}"
        title += " by its pixels" if serving.like_by == "pixels" else ""
    table, blocks, columns = drift_table(found.rows), [], []
    if serving.like is not None:
        columns.append("reference")
        blocks.append(Block(to_pil(reference_image(models, serving.like, models.encoder.spec)[None]), str(like)))
    for row, images in zip(*found, strict=True):
        cause = "drift" if row.ratio else "drift by other noise"
        columns.append(f"task weight {row.ratio:.3g}" if row.ratio else "without the task")
        blocks.append(image_block(images, f"score {row.score:.3g}, task {row.task:.2f}\n{cause} {row.drift:.2f}"))
    settings = {**inputs.row_settings(), **asdict(serving), "ratios": [row.ratio for row in found.rows[1:]],
                "target": target, "prior_samples": inputs.prior_samples, **drawn_by(models)}  # fmt: skip
    grid, figure = image_grid(title, columns, [Row("", blocks)]), object_drift(table, task=title, images=count)
    return Study("injection", atlas, settings, {"table": table}, figure, grid)
