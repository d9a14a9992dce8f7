"""Tasks f(x) that a sampler can serve besides a score: to resemble a reference image, to fit a text.

`TaskInjection` draws from p exp(beta s + eta f) (EnergyDPS, arXiv:2605.17504, section 2.2.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.base import OnStep, Sampler, Samples, Score
from engine.vision.encoder import Encoder

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class InjectedScore:
    """s + ratio f. A sampler that tilts by beta times this has the law p exp(beta s + eta f), eta = ratio beta."""

    score: Score
    task: Score
    ratio: float
    """eta / beta: what a unit of f is worth in units of s; negative values avoid the task."""

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """Scores of images in [0, 1]; differentiable."""
        return self.score(images) + self.ratio * self.task(images) if self.ratio else self.score(images)


@dataclass(frozen=True)
class TaskInjection:
    """Any sampler, made to serve a task besides the score that it is given."""

    sampler: Sampler
    """Its strength is beta."""
    task: Score
    """f, images [n, 3, H, W] in [0, 1] to [n]; differentiable."""
    ratio: float = 1.0
    """eta / beta, see `InjectedScore`."""

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`. Their scores are s alone."""
        drawn = self.sampler.sample(InjectedScore(score, self.task, self.ratio), n, seed, on_step)
        with torch.no_grad():
            return Samples(drawn.images, score(drawn.images).float(), drawn.trace)


class ReferenceSimilarity:
    """f(x) = cosine of the encoder's embeddings of x and of a reference image, in [-1, 1].

    Parameters
    ----------
    encoder
        Its embedding is the class token, or the mean patch.
    reference
        [3, H, W] in [0, 1].
    """

    def __init__(self, encoder: Encoder, reference: Tensor) -> None:
        self.encoder = encoder
        with torch.no_grad():
            self.target = encoder(reference[None]).embedding()[0]

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """Similarities of images in [0, 1]; differentiable."""
        return self.encoder(images).embedding() @ self.target


class TextAlignment:
    """f(x) = cosine of image and text in a space that both share (CLIP), in [-1, 1].

    Parameters
    ----------
    vision
        A `CLIPVisionModelWithProjection`, frozen.
    text
        [d], the text's projected embedding.
    """

    def __init__(self, vision: Any, text: Tensor) -> None:
        self.vision, self.text = vision, F.normalize(text.float(), dim=-1)

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """Alignments of images in [0, 1]; differentiable."""
        side = self.vision.config.image_size
        fitted = F.interpolate(images, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        pixels = ((fitted.clamp(0, 1) - mean) / std).to(self.vision.dtype)
        return F.normalize(self.vision(pixel_values=pixels).image_embeds.float(), dim=-1) @ self.text


def text_alignment(pipeline: Any, text: str) -> TextAlignment:
    """How well images fit a text, by the encoders of a pipeline that has both of a joint space.

    Parameters
    ----------
    pipeline
        A diffusers pipeline with an `image_encoder` and a text encoder that project into the same space.
    text
        What the images should show.

    Raises
    ------
    BlindspotError
        If the pipeline lacks one of the two: Stable Diffusion's text encoder alone knows no images.
    """
    vision: Any = getattr(pipeline, "image_encoder", None)
    for suffix in ("", "_2"):
        encoder: Any = getattr(pipeline, f"text_encoder{suffix}", None)
        size = getattr(getattr(encoder, "text_projection", None), "out_features", None)
        if size is not None and size == getattr(getattr(vision, "visual_projection", None), "out_features", None):
            tokenizer = getattr(pipeline, f"tokenizer{suffix}")
            words = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt").to(encoder.device)
            with torch.no_grad():
                return TextAlignment(vision, encoder(words.input_ids).text_embeds[0])
    raise BlindspotError(
        f"This {type(pipeline).__name__} has no image encoder that shares a space with its text encoder, so it cannot "
        "say how well an image fits a text: give a reference image instead."
    )
