"""Tasks f(x) that a sampler can serve besides a score s: to fit a text, to resemble a reference image.

`TaskInjection` draws from p exp(beta s + eta f) (EnergyDPS, arXiv:2605.17504, eq. 14 and 215). Every task is a
differentiable function of images [n, 3, height, width] in [0, 1] with values [n], the larger the better, and says
between which bounds they lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import BlindspotError
from engine.samplers.base import OnStep, Sampler, Samples, Score, prepared
from engine.samplers.models import ModelBundle, thumbnails
from engine.samplers.registry import SamplerSettings, TaskSettings, create
from engine.vision.encoder import Encoder
from engine.vision.preprocess import load_image, to_tensor
from engine.vision.spec import EncoderSpec
from engine.vision.text_image import TextImageEncoder


class TaskScore(Protocol):
    """A task: a score of images, and its bounds."""

    lowest: float
    highest: float

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """How well images in [0, 1] serve the task; differentiable."""


class TextAlignment:
    """f_c(x) = <v(x), t(c)>, the cosine of an image's and a text's embedding in the space that both share.

    CLIP's alignment (arXiv:2605.17504, appendix L.5.1), also with SigLIP. The model's own logit is this times its
    temperature (100 in CLIP), to which an eta is to be divided by that much.

    Parameters
    ----------
    encoder
        v and t.
    text
        c, what the images should show.
    """

    lowest, highest = -1.0, 1.0

    def __init__(self, encoder: TextImageEncoder, text: str) -> None:
        self.encoder = encoder
        with torch.no_grad():
            self.target = encoder.texts([text])[0]

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """Alignments of images in [0, 1]; differentiable."""
        return self.encoder.images(images) @ self.target


class ReferenceSimilarity:
    """f_y(x) = <e(x), e(y)>, the cosine of the encoder's embeddings of an image and a reference.

    Parameters
    ----------
    encoder
        Its embedding e is the class token, or the mean patch.
    reference
        y, [3, height, width] in [0, 1].
    """

    lowest, highest = -1.0, 1.0

    def __init__(self, encoder: Encoder, reference: Tensor) -> None:
        self.encoder = encoder
        with torch.no_grad():
            self.target = encoder(reference[None]).embedding()[0]

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """Similarities of images in [0, 1]; differentiable."""
        return self.encoder(images).embedding() @ self.target


class PixelSimilarity:
    """f_y(x) = -mean (x - y)^2 over pixels and channels: minus the mean squared error to a reference.

    This is -|x - y|^2 (arXiv:2605.17504, eq. 216) over the number of values, so that an eta means the same at every
    size of image; the reference is resized to the images' own size.

    Parameters
    ----------
    reference
        y, [3, height, width] in [0, 1].
    """

    lowest, highest = -1.0, 0.0

    def __init__(self, reference: Float[Tensor, "3 height width"]) -> None:
        self.reference = reference
        self._at = lru_cache(maxsize=4)(self._resized)

    def __call__(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, " n"]:
        """Minus the mean squared error of images in [0, 1]; differentiable."""
        target = self._at(tuple(images.shape[-2:])).to(images.device)
        return -(images - target).square().flatten(1).mean(dim=1)

    def _resized(self, size: tuple[int, int]) -> Tensor:
        if tuple(self.reference.shape[-2:]) == size:
            return self.reference
        fitted = torch.nn.functional.interpolate(self.reference[None], size, mode="bicubic", antialias=True)
        return fitted[0].clamp(0, 1)


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

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Draw n images; arguments and errors as in `Sampler.sample`. Their scores are s alone."""
        drawn = self.sampler.sample(InjectedScore(score, self.task, self.ratio), n, seed, on_step, first)
        with torch.no_grad():
            return Samples(drawn.images, score(drawn.images).float(), drawn.trace)

    def prepare(self, score: Score, seed: int = 0, on_step: OnStep | None = None) -> TaskInjection:
        """Prepare the sampler for both scores, for any number of drawings."""
        return replace(self, sampler=prepared(self.sampler, InjectedScore(score, self.task, self.ratio), seed, on_step))


def injected(method: str, models: ModelBundle, settings: SamplerSettings, task: TaskScore, ratio: float) -> Sampler:
    """A method's sampler that serves a task, too."""
    return TaskInjection(with_room(create(method, models, settings), task, ratio), task, ratio)


def with_room(sampler: Any, task: TaskScore, ratio: float) -> Sampler:
    """A sampler whose cap leaves room for what the task can add to the score; its strength stays the score's own."""
    cap = getattr(sampler, "score_cap", None)
    return replace(sampler, score_cap=cap + max(ratio * task.highest, ratio * task.lowest)) if cap else sampler


def task_of(models: ModelBundle, settings: TaskSettings) -> TaskScore | None:
    """The task that settings describe; None where they describe none.

    Raises
    ------
    BlindspotError
        If there is no such image or encoder, or the encoder does not embed texts.
    """
    if settings.text is not None:
        return TextAlignment(models.text_encoder(settings.text_encoder), settings.text)
    if settings.like is None:
        return None
    encoder = models.encoder
    if settings.like_by == "encoder":
        return ReferenceSimilarity(encoder, reference_image(models, settings.like, encoder.spec))
    side = models.prior.image_size if models.prior_spec else encoder.spec.image_size
    return PixelSimilarity(reference_image(models, settings.like, replace(encoder.spec, image_size=side)))


def reference_image(models: ModelBundle, like: str, spec: EncoderSpec) -> Float[Tensor, "3 size size"]:
    """An image of the atlas by its number, or a file, made square as the encoder sees it.

    Raises
    ------
    BlindspotError
        If there is no such image.
    """
    if like.isdecimal():
        return thumbnails(models.atlas, [int(like)], spec)[0].to(models.device)
    if not Path(like).expanduser().is_file():
        last = models.atlas.info.images - 1
        raise BlindspotError(f"There is no image file {like}: give a file, or the number of an image, 0 to {last}.")
    return to_tensor([load_image(Path(like).expanduser())], spec)[0].to(models.device)
