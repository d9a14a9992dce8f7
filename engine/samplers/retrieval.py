"""Retrieval: the real images of an atlas that excite a concept most; the peer that draws nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.errors import BlindspotError
from engine.samplers.base import OnStep, Samples, StepEvent, announce
from engine.samplers.instruments import AtlasLike
from engine.samplers.score import ConceptScore
from engine.vision.preprocess import to_tensor


@dataclass(frozen=True)
class Retrieval:
    """The best exemplars among an atlas's real images."""

    atlas: AtlasLike
    """Whose exemplars and thumbnails are used."""
    device: str = "cpu"
    """Where the score runs."""

    def exemplars(self, concept: int, n: int) -> list[int]:
        """Ids of the n real images with a concept's highest mean patch code, best first; fewer if there are not n."""
        return [int(image) for image in self.atlas.exemplars("real", concept, count=n)["image"]]

    def sample(self, score: ConceptScore, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """The n best exemplars of the score's first concept, as images and scores; in one step, whatever the seed.

        Raises
        ------
        BlindspotError
            If no real image has this concept.
        """
        thumbnails = [self.atlas.image(image) for image in self.exemplars(score.concepts[0], n)]
        if not thumbnails:
            raise BlindspotError(
                f"No real image of atlas {self.atlas.info.name!r} excites concept {score.concepts[0]}: draw it instead."
            )
        images = to_tensor(thumbnails, score.encoder.spec).to(self.device)
        with torch.no_grad():
            scores = score(images)
        announce(on_step, StepEvent(1, 1, scores, lambda: images))
        return Samples(images, scores, scores[None])
