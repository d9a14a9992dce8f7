"""Retrieval: real images of an atlas that excite a concept, the best ones or drawn from a tilt of the whole corpus."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from engine.errors import BlindspotError
from engine.klsc.tilt import tilt
from engine.samplers.base import OnStep, Samples, Score, StepEvent, announce, sample_generators, uniforms
from engine.samplers.models import real_images, thumbnails
from engine.samplers.scores import ConceptScore

if TYPE_CHECKING:
    from engine.atlas.reader import Atlas
    from engine.vision.spec import EncoderSpec

BATCH = 64
"""Images scored at once."""


@dataclass(frozen=True)
class Retrieval:
    """The best exemplars among an atlas's real images."""

    atlas: Atlas
    """Whose exemplars and thumbnails are used."""
    device: str = "cpu"
    """Where the score runs."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Return the n real images with the highest mean code of the score's first concept, best first.

        There is one step, the seed does not matter, and there are fewer images, perhaps none after the first ones,
        where the atlas has no n exemplars.

        Raises
        ------
        BlindspotError
            If no real image has this concept, or the score is not one of a concept.
        """
        if not isinstance(score, ConceptScore):
            raise BlindspotError("Retrieval finds the exemplars of a concept: give a ConceptScore.")
        exemplars = self.atlas.exemplars("real", score.concepts[0], count=first + n)["image"].to_numpy()
        if not len(exemplars):
            raise BlindspotError(
                f"No real image of atlas {self.atlas.info.name!r} excites concept {score.concepts[0]}: draw it instead."
            )
        if len(exemplars) <= first:
            side = score.encoder.spec.image_size
            return Samples(torch.empty(0, 3, side, side), torch.empty(0), torch.empty(1, 0))
        images = thumbnails(self.atlas, exemplars[first:], score.encoder.spec).to(self.device)
        with torch.no_grad():
            scores = score(images)
        announce(on_step, StepEvent(1, 1, scores, images))
        return Samples(images, scores, scores[None])


class Pool(NamedTuple):
    """The real images of an atlas and their scores: all that retrieval can ever show."""

    images: np.ndarray
    """[n], their ids."""
    scores: np.ndarray
    """[n] float64."""


@dataclass(frozen=True)
class PoolRetrieval:
    """Draws from an atlas's real images with the weights exp(beta s) (arXiv:2605.17504, eq. 17).

    Images are drawn with replacement, so that their law has the mean score it was asked for and can be compared with
    what other methods draw at the same score.

    Raises
    ------
    BlindspotError
        If the strength is not finite.
    """

    atlas: Atlas
    """Whose thumbnails are the pool."""
    spec: EncoderSpec
    """How thumbnails are made square."""
    device: str = "cpu"
    """Where the score runs."""
    strength: float = 1.0
    """beta of the weights: 0 draws evenly, a large one always the best image."""
    pool: Pool | None = None
    """Scores from an earlier `score_pool`; None scores the corpus for every drawing."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise BlindspotError(f"The strength must be a finite number, not {self.strength}.")

    def prepare(self, score: Score, seed: int = 0, on_step: OnStep | None = None) -> PoolRetrieval:
        """Score the corpus once, for any number of drawings."""
        return self if self.pool else replace(self, pool=score_pool(self.atlas, score, self.spec, self.device))

    def weights(self, scores: np.ndarray) -> np.ndarray:
        """The law on a pool with scores [n]: probabilities [n]."""
        return np.exp(tilt(scores, self.strength))

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Draw n images in one step; arguments and errors as in `Sampler.sample`, and if there is no real image."""
        generators = sample_generators(seed, n, first)
        pool = self.pool or score_pool(self.atlas, score, self.spec, self.device)
        ends = np.cumsum(self.weights(pool.scores))
        places = uniforms(generators).numpy().astype(np.float64) * ends[-1]
        drawn = np.searchsorted(ends, places, side="right").clip(0, len(ends) - 1)
        images = thumbnails(self.atlas, pool.images[drawn], self.spec).to(self.device)
        scores = torch.tensor(pool.scores[drawn], dtype=torch.float32, device=self.device)
        announce(on_step, StepEvent(1, 1, scores, images))
        return Samples(images, scores, scores[None])


def score_pool(atlas: Atlas, score: Score, spec: EncoderSpec, device: str = "cpu") -> Pool:
    """Score every real image of an atlas.

    Raises
    ------
    BlindspotError
        If it has none.
    """
    images = real_images(atlas)
    with torch.no_grad():
        scores = [
            score(thumbnails(atlas, images[start : start + BATCH], spec).to(device)).float().cpu()
            for start in range(0, len(images), BATCH)
        ]
    return Pool(images, torch.cat(scores).double().numpy())
