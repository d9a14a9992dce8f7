"""A score that several views of an image must share: a pattern that only fools the encoder earns little by it.

Expectation over transformation (Athalye et al. 2018, arXiv 1707.07397): what excites a concept by its looks does so
when the image is moved a little, mirrored or blurred; an adversarial texture, tied to the encoder's patch grid and to
the finest detail, mostly does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.samplers.base import Score

KERNEL = (0.25, 0.5, 0.25)
"""A small blur along one axis."""


class View(NamedTuple):
    """One way to look at an image."""

    down: float = 0.0
    """Shift in shares of the image's side."""
    right: float = 0.0
    mirrored: bool = False
    blurred: bool = False

    def of(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] seen this way; what a shift uncovers repeats the edge."""
        height, width = images.shape[-2:]
        down, right = round(self.down * height), round(self.right * width)
        margin = max(abs(down), abs(right))
        if self.mirrored:
            images = images.flip(-1)
        if margin:
            padded = F.pad(images, (margin,) * 4, mode="replicate")
            images = padded[..., margin - down : margin - down + height, margin - right : margin - right + width]
        return _blur(images) if self.blurred else images


VIEWS = (View(), View(0.05, 0.03, mirrored=True), View(-0.05, 0.02, blurred=True), View(0.02, -0.05, True, True))
"""The views of `RobustScore`: fixed, so that a score is a function of the image alone."""


@dataclass(frozen=True)
class RobustScore:
    """The mean of a score over views of an image."""

    score: Score
    """Images [B, 3, H, W] in [0, 1] to scores [B]."""
    views: tuple[View, ...] = VIEWS

    def __call__(self, images: Tensor) -> Tensor:
        """Scores [B] of images [B, 3, H, W] in [0, 1]; differentiable."""
        return torch.stack([self.score(view.of(images)) for view in self.views]).mean(dim=0)


def _blur(images: Tensor) -> Tensor:
    """Images [B, C, H, W] under a 3 x 3 binomial kernel."""
    line = images.new_tensor(KERNEL)
    kernel = torch.outer(line, line).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1])
