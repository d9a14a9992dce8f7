"""What a study draws: one score under one order, at any strength or at a wanted mean score, no drawing made twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from engine.atlas.reader import Atlas
from engine.errors import BlindspotError
from engine.samplers.base import OnStep, Sampler, Samples, Score
from engine.samplers.calibration import FEWEST, Trial, mean_of_best, nearest, run_trial, sample_calibrated
from engine.samplers.generation import GenerationRequest, Reference, best_real_images, default_cap
from engine.samplers.models import ModelBundle
from engine.samplers.registry import WITHOUT_STRENGTH, SamplerSettings, create, require_method
from engine.samplers.scores import ConceptScore

NEAR = 0.05
"""Share of a target that the mean of a matched drawing may miss."""
Listener = Callable[[str], OnStep | None]
"""Given the name of a part of a study, gives what hears of its steps."""


def silence(part: str) -> None:
    """A listener to nothing."""


class Reached(NamedTuple):
    """The drawing that came nearest to a wanted mean score."""

    drawn: Trial
    note: str
    """Why it is not there; empty where it is."""


@dataclass(frozen=True)
class Subject:
    """One score, and drawings that excite it."""

    models: ModelBundle
    """Prior and encoder."""
    order: GenerationRequest
    """Method, count, seed and steps of every drawing; its strength is the first that a search tries."""
    score: Score
    """What is to be excited."""
    references: tuple[Reference, ...]
    """The real images that the score likes best, best first."""
    drawn: dict[float | None, dict[float, Trial]] = field(default_factory=dict)
    """All drawings so far: those of a search by the score that was looked for, others by None; then by strength."""

    @property
    def best(self) -> float:
        """Mean score of the references.

        Raises
        ------
        BlindspotError
            If there are none.
        """
        return mean_of_best([reference.score for reference in self.references])

    def settings(self, strength: float) -> SamplerSettings:
        """What the method is told at a strength."""
        return replace(self.order, strength=strength, score_cap=default_cap(self.references), guidance_end=None)

    def draw(self, strength: float, on_step: OnStep | None = None) -> Trial:
        """Draw at a strength; arguments and errors as in `Sampler.sample`."""

        def factory(strength: float) -> Sampler:
            return create(self.order.method, self.models, self.settings(strength))

        drawn = self.drawn.setdefault(None, {})
        return run_trial(drawn, strength, factory, self.score, self.order.count, self.order.seed, on_step)

    def reach(self, target: float, start: float | None = None, on_step: OnStep | None = None) -> Reached:
        """Draw at the mean score `target`, or as near to it as the search came.

        Parameters
        ----------
        target
            The mean score.
        start
            First strength to try; the order's by default.
        on_step
            As in `Sampler.sample`, for every trial.

        Raises
        ------
        BlindspotError
            If nothing could be drawn at all.
        Cancelled
            If `on_step` said so.
        """
        drawn = self.drawn.setdefault(target, {})

        def factory(strength: float) -> Sampler:
            return create(self.order.method, self.models, self.settings(strength).towards(target))

        try:
            _, match = sample_calibrated(
                factory, self.score, target, count=self.order.count, start=start or self.order.strength,
                seed=self.order.seed, on_step=on_step, trials=drawn,
            )  # fmt: skip
        except BlindspotError as error:
            if not drawn:
                raise
            return Reached(nearest(drawn, target), str(error))
        found = drawn[match.strength]
        missed = abs(found.mean - target) > max(NEAR * abs(target), found.error)
        return Reached(found, f"{match.evaluations} trials came no nearer than {found.mean:.4g}." if missed else "")


def concept_subject(atlas: Atlas, order: GenerationRequest, device: str | None = None) -> Subject:
    """A concept of an atlas as a subject.

    Raises
    ------
    BlindspotError
        If the atlas has no such concept, it is dead or no real image has it; if the method is unknown or has no
        strength, or fewer than `FEWEST` samples are ordered.
    """
    require_method(order.method)
    if order.method in WITHOUT_STRENGTH:
        raise BlindspotError(f"Method {order.method!r} has no strength, so there is nothing to study: choose another.")
    if order.count < FEWEST:
        raise BlindspotError(f"A study compares means: draw at least {FEWEST} samples, not {order.count}.")
    models, concept = ModelBundle(atlas, device), order.concept
    score = ConceptScore(models.encoder, models.dictionary, [concept])
    if atlas.concepts["dead"].iat[concept]:
        raise BlindspotError(
            f"Concept {concept} of atlas {atlas.info.name!r} is dead, no real image excites it: choose a live one."
        )
    subject = Subject(models, order, score, best_real_images(models, score))
    if subject.best <= 0:
        raise BlindspotError(f"The best real images of concept {concept} score {subject.best:.3g}: choose another one.")
    return subject


def codes_mean(subject: Subject, samples: Samples) -> float:
    """Mean score of the final sparse codes of a concept's drawing."""
    with torch.no_grad():
        return float(subject.score.codes_score(samples.images).mean())
