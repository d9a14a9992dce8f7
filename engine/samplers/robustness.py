"""How far an image that shows nothing gets: the concept's score of optimised images, against the best real ones'.

Nothing keeps these images natural, so a high score says that the concept is easily fooled (arXiv:1412.1897), unless an
independent judge sees in them what the concept stands for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.errors import BlindspotError
from engine.samplers.base import OnStep, Sampler
from engine.samplers.feature_visualization import MACO, PixelOptimisation, RegularisedOptimisation, corpus_spectrum
from engine.samplers.generation import best_real_images
from engine.samplers.models import ModelBundle
from engine.samplers.recognition import FOOLING_METHODS, FOOLING_SEEDS, FOOLING_STEPS, recognise
from engine.samplers.scores import ConceptScore


class FoolingAttempt(NamedTuple):
    """The best image of one method for one concept: a row of the table `fooling`."""

    concept: int
    method: str
    """One of `FOOLING_METHODS`."""
    score: float
    """The highest of its images' scores."""
    reference_score: float
    """Mean score of the best real images."""
    recognised: bool | None
    """Whether the atlas's judge sees in that image what the concept stands for; None if it was not asked."""
    steps: int
    seeds: int
    """How many images the method made."""
    seconds: float
    """Of making them all."""


def fool_concept(
    models: ModelBundle,
    concept: int,
    methods: Sequence[str] = tuple(FOOLING_METHODS),
    steps: int = FOOLING_STEPS,
    seeds: int = FOOLING_SEEDS,
    on_step: OnStep | None = None,
) -> list[FoolingAttempt]:
    """Optimise images for a concept's score by each method.

    Parameters
    ----------
    models
        Encoder, dictionary and, if the atlas has one, judge.
    concept
        A live concept.
    methods
        Of `FOOLING_METHODS`.
    steps, seeds
        Optimisation steps, and images of each method.
    on_step
        Called after every step; may cancel.

    Raises
    ------
    BlindspotError
        If there is no such method, or the best real images do not excite the concept.
    Cancelled
        If `on_step` returned False.
    """
    score = ConceptScore(models.encoder, models.dictionary, [concept])
    best = float(np.mean([reference.score for reference in best_real_images(models, score)] or [0.0]))
    if best <= 0:
        raise BlindspotError(f"The best real images of concept {concept} score {best:.3g}: nothing to compare with.")
    found = []
    for method in methods:
        began = time.perf_counter()
        drawn = _sampler(method, models, steps).sample(score, seeds, 0, on_step)
        seconds, top = time.perf_counter() - began, int(drawn.scores.argmax())
        judged = recognise(models, [concept], drawn.images[[top]])
        seen = judged.recognised[0] if judged is not None and judged.recognised else None
        found.append(FoolingAttempt(concept, method, float(drawn.scores[top]), best, seen, steps, seeds, seconds))
    return found


def _sampler(method: str, models: ModelBundle, steps: int) -> Sampler:
    size, device = models.encoder.spec.image_size, models.device
    if method == "pixels":
        return PixelOptimisation(size, device, steps)
    if method == "fourier":
        return RegularisedOptimisation(size, device, steps, variation=0.0)
    if method == "maco":
        return MACO(corpus_spectrum(models.atlas, models.encoder.spec).to(device), steps)
    raise BlindspotError(f"There is no fooling method {method!r}: choose among {', '.join(FOOLING_METHODS)}.")
