"""Object drift: what changes in the images when a task is served more and more while the mean score stays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.atlas.reader import Atlas
from engine.errors import BlindspotError
from engine.klsc.injection import distortion_bound
from engine.klsc.tilt import calibrate_tilt, tilt
from engine.samplers.base import Sampler, Score
from engine.samplers.calibration import sample_calibrated
from engine.samplers.generation import GenerationRequest
from engine.samplers.metrics import prior_images
from engine.samplers.models import ModelBundle, thumbnails
from engine.samplers.registry import SamplerSettings, create
from engine.vision.encoder import Encoder
from precompute.studies.injection import ReferenceSimilarity, TaskInjection, text_alignment
from precompute.studies.subject import Listener, concept_subject, silence

POOL = 64
"""Images of the prior that the bound is taken from."""
SHARES = (0.25, 0.5, 1.0, 2.0)
"""Ratios when none are named, in units of the target: what a task is worth must be seen beside the score."""
OnImages = Callable[[float, Tensor], None]


class Drift(NamedTuple):
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


def drift(
    factory: Callable[[float, float], Sampler],
    score: Score,
    task: Score,
    energies: Callable[[Tensor], np.ndarray],
    target: float,
    ratios: Sequence[float],
    *,
    prior: Tensor,
    start: float = 0.3,
    n: int = 8,
    seed: int = 0,
    listener: Listener = silence,
    on_images: OnImages = lambda ratio, images: None,
) -> list[Drift]:
    """Raise the weight of a task while the mean score stays, and see what else changes.

    Every ratio has the same noise and a strength of its own, see `match_strength`. Where the task does not let the
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
        [m, 3, H, W] images of the prior itself, for the bound.
    start, n, seed
        As `start`, `count` and `seed` in `matched.draw_matched`.
    listener
        Given the name of a ratio, gives what hears of its steps.
    on_images
        Given the ratio and the images [n, 3, H, W] of each row that could be drawn.

    Raises
    ------
    BlindspotError
        If the target is out of reach without the task.
    Cancelled
        If the listener said so.
    """
    with torch.no_grad():
        pool = [function(prior).double().cpu().numpy() for function in (score, task)]
    rows, before = [], None
    for ratio in (0.0, *ratios):

        def injected(strength: float, ratio: float = ratio) -> Sampler:
            return TaskInjection(factory(strength, ratio), task, ratio)

        try:
            samples, found = sample_calibrated(
                injected, score, target, count=n, start=start, seed=seed, on_step=listener(f"ratio {ratio:.3g}")
            )
        except BlindspotError:
            if before is None:
                raise
            rows.append(Drift(ratio, *[math.nan] * 7))
            continue
        on_images(ratio, samples.images)
        mean = energies(samples.images).mean(axis=0)
        if before is None:
            before = mean
            mean = energies(injected(found.strength).sample(score, n, seed + 1).images).mean(axis=0)
        with torch.no_grad():
            level = task(samples.images).double().cpu().numpy()
        change = float(np.linalg.norm(mean - before) / np.linalg.norm(before))
        error = float(level.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
        bound = least_distortion(*pool, found.mean, float(level.mean()))
        rows.append(
            Drift(ratio, found.strength, found.mean, found.standard_error, float(level.mean()), error, change, bound)
        )
    return rows


def least_distortion(scores: np.ndarray, task: np.ndarray, target: float, level: float) -> float:
    """The bound of Theorem E.3 in nats, by a pool of the prior's samples with scores s and f [m].

    NaN where the pool has no law with the mean scores `target` and `level`.
    """
    try:
        intrinsic = tilt(scores, calibrate_tilt(scores, target).value)
        return distortion_bound(task, level, intrinsic).distortion
    except BlindspotError:
        return math.nan


def other_energies(encoder: Encoder, dictionary: Any, concepts: Sequence[int]) -> Callable[[Tensor], np.ndarray]:
    """Energies [n, K] of images, the sum of codes over all tokens, with 0 for the concepts that are meant to change."""

    def measure(images: Tensor) -> np.ndarray:
        with torch.no_grad():
            tokens = encoder(images).flat()
            codes = dictionary.encode(tokens.flatten(0, 1))
            energies = torch.zeros(len(images), dictionary.concepts, device=tokens.device)
            each = codes.indices.reshape(len(images), -1).long()
            energies.scatter_add_(1, each, codes.values.float().reshape(len(images), -1))
        energies[:, list(concepts)] = 0
        return energies.cpu().numpy()

    return measure


def concept_drift(
    atlas: Atlas,
    concept: int,
    reference: int | str,
    ratios: Sequence[float] | None = None,
    *,
    target: float | None = None,
    method: str = GenerationRequest.method,
    steps: int = GenerationRequest.steps,
    states: int = GenerationRequest.candidates,
    n: int = 8,
    pool: int = POOL,
    seed: int = 0,
    device: str | None = None,
    listener: Listener = silence,
    on_images: OnImages = lambda ratio, images: None,
) -> list[Drift]:
    """What happens to a concept's drawings when they should resemble a real image, or fit a text, as well.

    Parameters
    ----------
    atlas, concept
        As in `drawing.draw_concept`.
    reference
        Id of the image to resemble, or the text to fit.
    ratios
        As in `drift`; a similarity lies between -1 and 1, so a ratio is in units of the score. None: `SHARES` of the
        target.
    target
        The mean score to hold; that of the best real images when None.
    method, steps, states
        A method of the registry whose strength pushes, its steps, and the states that its samples begin as.
    n, seed
        As in `drift`.
    pool
        Images drawn from the prior for the bound.
    device
        As in `drawing.draw_concept`.
    listener, on_images
        As in `drift`.

    Raises
    ------
    BlindspotError
        As `subject.concept_subject`; if the score is out of reach, a ratio is not a number other than 0, there is no
        such image, or the prior has no encoder that could compare images with a text.
    Cancelled
        If the listener said so.
    """
    subject = concept_subject(
        atlas, GenerationRequest(concept, method, n, seed, steps=steps, candidates=states), device
    )
    models, score = subject.models, subject.score
    if target is None:
        target = subject.best
    if ratios is None:
        ratios = [share * target for share in SHARES]
    if not all(math.isfinite(ratio) and ratio for ratio in ratios):
        raise BlindspotError(f"Ratios are finite numbers other than 0, not {list(ratios)}.")
    task = _task(models, reference)
    base = SamplerSettings(steps=steps, candidates=states).towards(target)

    def factory(strength: float, ratio: float) -> Sampler:
        most = (
            None if base.score_cap is None else base.score_cap + max(ratio, 0.0)
        )  # a similarity adds at most 1 x ratio
        return create(method, models, replace(base, strength=strength, score_cap=most))

    prior = prior_images(models, steps, pool, seed + 1, listener("prior"))
    energies = other_energies(models.encoder, models.dictionary, [concept])
    return drift(
        factory, score, task, energies, target, ratios, prior=prior, start=base.strength, n=n, seed=seed,
        listener=listener, on_images=on_images,
    )  # fmt: skip


def _task(models: ModelBundle, reference: int | str) -> Score:
    """Alignment with a text, or similarity to an image of the atlas."""
    if isinstance(reference, str):
        return text_alignment(models.pipeline, reference)
    image = thumbnails(models.atlas, np.array([reference]), models.encoder.spec)[0]
    return ReferenceSimilarity(models.encoder, image.to(models.device))
