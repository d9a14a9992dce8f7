"""Real images drawn from a law on the whole corpus: the soft tilt, or the best K (paper 000, eq. 17 and appendix I.1).

With `Retrieval` the best exemplars are shown; here images are drawn, with replacement, so that their law has the mean
score it was asked for and can be compared with what other methods draw at the same score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.errors import BlindspotError
from engine.klsc.law import effective_sample_size
from engine.klsc.tilt import tilt
from engine.samplers.base import OnStep, Samples, Score, StepEvent, announce, sample_generators
from engine.samplers.instruments import AtlasLike
from engine.vision.preprocess import to_tensor
from engine.vision.spec import EncoderSpec

BATCH = 64
"""Images scored at once."""


class Pool(NamedTuple):
    """The real images of an atlas and their scores: all that retrieval can ever show."""

    images: np.ndarray
    """[n], their ids."""
    scores: np.ndarray
    """[n] float64."""


@dataclass(frozen=True)
class PoolRetrieval:
    """Draws from an atlas's real images by their scores.

    Raises
    ------
    BlindspotError
        For settings that make no sense.
    """

    atlas: AtlasLike
    """Whose thumbnails are the pool."""
    spec: EncoderSpec
    """How thumbnails are made square."""
    device: str = "cpu"
    """Where the score runs."""
    strength: float = 1.0
    """beta of the tilt's weights exp(beta s): 0 draws evenly, a large one always the best image."""
    best: int | None = None
    """Draw evenly from this many best images instead."""
    pool: Pool | None = None
    """Scores from an earlier `score_pool`; None scores the corpus for every drawing."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise BlindspotError(f"The strength must be a finite number, not {self.strength}.")
        if self.best is not None and self.best < 1:
            raise BlindspotError(f"The best {self.best} images were asked for: ask for at least 1.")

    def weights(self, scores: np.ndarray) -> np.ndarray:
        """The law on a pool with scores [n]: probabilities [n]."""
        if self.best is None:
            return np.exp(tilt(scores, self.strength))
        chosen = np.argsort(-scores, kind="stable")[: self.best]
        weights = np.zeros(len(scores))
        weights[chosen] = 1 / len(chosen)
        return weights

    def effective_images(self, pool: Pool) -> float:
        """How many images the law amounts to, 1 / sum w^2: the effective sample size."""
        with np.errstate(divide="ignore"):
            return effective_sample_size(np.log(self.weights(pool.scores)))

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n images, with replacement, in one step; arguments and errors as in `Sampler.sample`.

        Raises
        ------
        BlindspotError
            If n is not positive or the atlas has no real image.
        """
        if n < 1:
            raise BlindspotError(f"{n} samples were asked for: ask for at least 1.")
        pool = self.pool or score_pool(self.atlas, score, self.spec, self.device)
        ends = np.cumsum(self.weights(pool.scores))
        uniforms = [torch.rand((), generator=generator).item() for generator in sample_generators(seed, n)]
        drawn = np.searchsorted(ends, np.array(uniforms) * ends[-1], side="right").clip(0, len(ends) - 1)
        images = thumbnails(self.atlas, pool.images[drawn], self.spec).to(self.device)
        scores = torch.tensor(pool.scores[drawn], dtype=torch.float32, device=self.device)
        announce(on_step, StepEvent(1, 1, scores, lambda: images))
        return Samples(images, scores, scores[None])


def score_pool(atlas: AtlasLike, score: Score, spec: EncoderSpec, device: str = "cpu") -> Pool:
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


def real_images(atlas: AtlasLike) -> np.ndarray:
    """Ids [n] of an atlas's real images.

    Raises
    ------
    BlindspotError
        If it has none.
    """
    sources = atlas.images["source"]
    images = sources.index[sources == "real"].to_numpy()
    if not len(images):
        raise BlindspotError(f"Atlas {atlas.info.name!r} holds no real images: choose a method that draws.")
    return images


def thumbnails(atlas: AtlasLike, images: np.ndarray, spec: EncoderSpec) -> Tensor:
    """The thumbnails of images [n] as the encoder sees them, [n, 3, image_size, image_size] in [0, 1]."""
    return to_tensor([atlas.image(int(image)) for image in images], spec)
