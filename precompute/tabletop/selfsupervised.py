"""A DINOv2-with-registers encoder taught by pictures alone: hidden pixels first, then toys seen twice.

No caption, no kind, colour or surface is ever read. First the model paints the patches hidden from it (SimMIM, Xie et
al. 2022). Then it is shown pairs of pictures of the same toys, met again elsewhere as in two moments of a film, and
must find each picture's partner among the others (InfoNCE, as in time-contrastive learning, Sermanet et al. 2018). What
each patch shows is the lesson of `patchwise`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD
from precompute.tabletop.dataset import Pictures
from precompute.tabletop.loop import Budget, device, half, optimise
from precompute.tabletop.scenes import Scene, sample_scene

__all__ = ["PLAN", "Plan", "Student", "build", "elsewhere", "mutual_surprise", "normalise", "random_view", "train"]

PATCH = 8
GRID = 8


@dataclass(frozen=True)
class Plan:
    """How the encoder is trained."""

    pixels: Budget = field(default=Budget(1000, batch=96, learning_rate=1.5e-3, weight_decay=0.05, averaging=0.998))
    pairs: Budget = field(default=Budget(1700, batch=96, learning_rate=1e-3, weight_decay=0.05, averaging=0.998))
    hidden: float = 0.55
    """Share of patches hidden from the student."""
    temperature: float = 0.15
    """Of the softmax over possible partners."""


PLAN = Plan()


def build(width: int = 192, depth: int = 6) -> Dinov2WithRegistersModel:
    """An untrained encoder for 64 px pictures: 1 class token, 4 registers, 8x8 patches of 8 px."""
    torch.manual_seed(0)
    return Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=width // 64,
            image_size=PATCH * GRID,
            patch_size=PATCH,
            num_register_tokens=4,
            layerscale_value=0.1,
        )
    )


def _head(dim: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, 256), nn.GELU(), nn.Linear(256, width))


class Student(nn.Module):
    """The encoder with the heads that only training needs."""

    def __init__(self, encoder: Dinov2WithRegistersModel, width: int = 128):
        super().__init__()
        self.encoder = encoder
        dim = encoder.config.hidden_size
        self.pixels = nn.Linear(dim, 3 * PATCH * PATCH)
        self.names = nn.ModuleList(_head(dim, width) for _ in range(2))

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class token `[B, d]` and patches `[B, 64, d]` of normalised images, the `hidden` patches `[B, 64]` masked."""
        tokens = self.encoder(images, bool_masked_pos=hidden).last_hidden_state
        return tokens[:, 0], tokens[:, 1 + self.encoder.config.num_register_tokens :]

    def identities(self, overall: Tensor, patches: Tensor) -> Tensor:
        """Unit vectors that tell pictures apart, `[2, B, width]`: from the class token and from the mean patch."""
        heads = zip(self.names, (overall, patches.mean(dim=1)), strict=True)
        return F.normalize(torch.stack([head(x) for head, x in heads]).float(), dim=-1)


def elsewhere(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same toys on another surface, in other places and sizes."""
    number = len(scene.things)
    spots = sample_scene(rng, counts=[float(n == number) for n in range(1, number + 1)])
    order = rng.permutation(number)
    moved = [
        replace(spot, kind=scene.things[i].kind, colour=scene.things[i].colour)
        for spot, i in zip(spots.things, order, strict=True)
    ]
    return replace(spots, things=tuple(moved))


def train(pictures: Pictures, partners: Pictures, folder: Path, plan: Plan = PLAN) -> Student:
    """Train a student on pixels, then on pairs; resumes from the checkpoints in `folder`.

    `partners` shows the toys of `pictures`, one for one, elsewhere.
    """
    student = Student(build()).to(device())

    def paint(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures.pixels), (plan.pixels.batch,), generator=generator)
        images, hidden = (
            random_view(pictures.batch(chosen), generator),
            _hide(plan.pixels.batch, plan.hidden, generator),
        )
        with half():
            _, patches = student(images, hidden)
            drawn = student.pixels(patches[hidden])
        return _painting_error(drawn, images, hidden)

    student = optimise(student, paint, plan.pixels, folder / "encoder-pixels.pt").requires_grad_(True)

    def find_partner(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(pictures.pixels), generator=generator)[: plan.pairs.batch]
        first, second = random_view(pictures.batch(chosen), generator), random_view(partners.batch(chosen), generator)
        masked = (torch.rand(plan.pairs.batch, 1, generator=generator) < 0.5).to(device())
        hidden = _hide(plan.pairs.batch, plan.hidden, generator) & masked
        with half():
            overall, patches = student(torch.cat([first, second]), torch.cat([hidden, torch.zeros_like(hidden)]))
            drawn = student.pixels(patches[: plan.pairs.batch][hidden])
        ones, twos = student.identities(overall, patches).chunk(2, dim=1)
        return mutual_surprise(ones, twos, plan.temperature) + _painting_error(drawn, first, hidden)

    return optimise(student, find_partner, plan.pairs, folder / "encoder-pairs.pt")


def _painting_error(drawn: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    return F.smooth_l1_loss(drawn.float(), _cut(images)[hidden], beta=0.5)


def mutual_surprise(ones: Tensor, twos: Tensor, temperature: float) -> Tensor:
    """InfoNCE in both directions for identities `[heads, B, width]` of two views, mean over heads and pictures."""
    likeness = ones @ twos.transpose(1, 2) / temperature
    partner = torch.arange(ones.shape[1], device=ones.device).expand(len(ones), -1)
    return (F.cross_entropy(likeness, partner) + F.cross_entropy(likeness.transpose(1, 2), partner)) / 2


def normalise(images: Tensor) -> Tensor:
    """Images `[B, 3, h, w]` in 0..1 as the encoder reads them: minus ImageNet's mean, over its deviation."""
    return (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


def _cut(images: Tensor) -> Tensor:
    """Images `[B, 3, 64, 64]` as patches `[B, 64, 192]`."""
    return F.pixel_unshuffle(images, PATCH).flatten(2).transpose(1, 2)


def random_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop of each image, mirrored, lit and softened at random: normalised `[B, 3, 64, 64]`."""
    batch = len(images)
    draw = partial(torch.rand, generator=generator)
    scale = 0.65 + 0.35 * draw(batch)
    mirror = torch.where(draw(batch) < 0.5, -1.0, 1.0)
    shift = (2 * draw(batch, 2) - 1) * (1 - scale)[:, None]
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * mirror, scale, shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    soft = F.avg_pool2d(F.pad(images, (1,) * 4, mode="replicate"), 3, stride=1)
    images = images.lerp(soft, draw(batch, 1, 1, 1).mul(1.2).sub(0.3).clamp(0, 0.9))
    light = 1 + 0.3 * (draw(batch, 1, 1, 1) - 0.5)
    return normalise((images * light).clamp(0, 1)).to(device())


def _hide(batch: int, share: float, generator: torch.Generator) -> Tensor:
    """Bool `[batch, 64]`: a share of the patches, in clumps of about 2x2."""
    coarse = torch.rand(batch, 1, GRID // 2 + 1, GRID // 2 + 1, generator=generator)
    shifts = torch.randint(2, (2,), generator=generator).tolist()
    clumps = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., shifts[0] :, shifts[1] :][..., :GRID, :GRID]
    noise = clumps.flatten(1) + 0.35 * torch.rand(batch, GRID * GRID, generator=generator)
    chosen = noise.argsort(dim=1)[:, : round(share * GRID * GRID)]
    return torch.zeros(batch, GRID * GRID, dtype=torch.bool).scatter_(1, chosen, True).to(device())
