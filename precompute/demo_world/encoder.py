"""The demo's encoder: a DINOv2 with registers, trained by pictures alone in three stages.

1. Hidden pixels: the model paints the patches hidden from it (SimMIM, Xie et al. 2022).
2. Pairs: shown pictures of the same toys, met again elsewhere as in two moments of a film, it must find each picture's
   partner among the others (InfoNCE, as in time-contrastive learning, Sermanet et al. 2018).
3. Patches: every patch alone must tell what it shows, a toy or a surface. Each picture has two relatives: one shows the
   same toys repainted elsewhere, the other shows other toys on the same kind of surface. Two learned queries pool a
   picture's patches, and each patch of one picture must pick the other's pooled patches among those of the batch, and
   lie close to them. No patch is told to be toy or surface: of 64 patches the twelve that know the toys best are asked
   for the toys, the forty that know the surface best for the surface. Picking is InfoNCE on patches, as in dense
   contrastive learning (Wang et al. 2021). Closeness squeezes out what relatives do not share, such as colour, which
   picking alone leaves in (alignment against uniformity, Wang and Isola 2020).

No caption or name is ever read, but the renderer draws the relatives, so pairing tells the encoder what counts as the
same: the kind of a toy and of a surface, not its colour, place or light.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from engine.vision.spec import IMAGENET_MEAN, IMAGENET_STD
from precompute.demo_world.optimisation import DEVICE, Budget, RenderedScenes, half, optimise
from precompute.demo_world.scenes import COLOURS, Scene, sample_scene

PATCH = 8
GRID = 8


@dataclass(frozen=True)
class PretrainingConfig:
    """How the encoder is trained on pixels and pairs."""

    pixels: Budget = field(default=Budget(1000, batch=96, learning_rate=1.5e-3, weight_decay=0.05, averaging=0.998))
    pairs: Budget = field(default=Budget(1700, batch=96, learning_rate=1e-3, weight_decay=0.05, averaging=0.998))
    hidden: float = 0.55
    """Share of patches hidden from the student."""
    temperature: float = 0.15
    """Of the softmax over possible partners."""


def build_encoder(width: int = 192, depth: int = 6) -> Dinov2WithRegistersModel:
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


class Student(nn.Module):
    """The encoder with the heads that only training needs."""

    def __init__(self, encoder: Dinov2WithRegistersModel, width: int = 128):
        super().__init__()
        self.encoder: Any = encoder
        dim = encoder.config.hidden_size
        self.pixels = nn.Linear(dim, 3 * PATCH * PATCH)
        self.names = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 256), nn.GELU(), nn.Linear(256, width)) for _ in range(2)
        )

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class token `[B, d]` and patches `[B, 64, d]` of normalised images, the `hidden` patches `[B, 64]` masked."""
        tokens = self.encoder(images, bool_masked_pos=hidden).last_hidden_state
        return tokens[:, 0], tokens[:, 1 + self.encoder.config.num_register_tokens :]

    def identities(self, overall: Tensor, patches: Tensor) -> Tensor:
        """Unit vectors that tell pictures apart, `[2, B, width]`: from the class token and from the mean patch."""
        heads = zip(self.names, (overall, patches.mean(dim=1)), strict=True)
        return F.normalize(torch.stack([head(x) for head, x in heads]).float(), dim=-1)


def moved(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same toys on another surface, in other places and sizes."""
    number = len(scene.things)
    spots = sample_scene(rng, counts=[float(n == number) for n in range(1, number + 1)])
    toys = [scene.things[index] for index in rng.permutation(number)]
    things = [replace(spot, kind=toy.kind, colour=toy.colour) for spot, toy in zip(spots.things, toys, strict=True)]
    return replace(spots, things=tuple(things))


def pretrain(
    pictures: RenderedScenes, partners: RenderedScenes, folder: Path, config: PretrainingConfig = PretrainingConfig()
) -> Student:
    """Train a student on pixels, then on pairs; resumes from the checkpoints in `folder`.

    `partners` shows the toys of `pictures`, one for one, elsewhere.
    """
    student = Student(build_encoder()).to(DEVICE)

    def pixel_loss(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures.pixels), (config.pixels.batch,), generator=generator)
        images = random_view(pictures.batch(chosen), generator)
        hidden = _hide(config.pixels.batch, config.hidden, generator)
        with half():
            _, patches = student(images, hidden)
            drawn = student.pixels(patches[hidden])
        return _painting_loss(drawn, images, hidden)

    student = optimise(student, pixel_loss, config.pixels, folder / "encoder-pixels.pt").requires_grad_(True)

    def pair_loss(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(pictures.pixels), generator=generator)[: config.pairs.batch]
        first, second = random_view(pictures.batch(chosen), generator), random_view(partners.batch(chosen), generator)
        masked = (torch.rand(config.pairs.batch, 1, generator=generator) < 0.5).to(DEVICE)
        hidden = _hide(config.pairs.batch, config.hidden, generator) & masked
        with half():
            overall, patches = student(torch.cat([first, second]), torch.cat([hidden, torch.zeros_like(hidden)]))
            drawn = student.pixels(patches[: config.pairs.batch][hidden])
        ones, twos = student.identities(overall, patches).chunk(2, dim=1)
        return info_nce(ones, twos, config.temperature) + _painting_loss(drawn, first, hidden)

    return optimise(student, pair_loss, config.pairs, folder / "encoder-pairs.pt")


def _painting_loss(drawn: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    patches = F.pixel_unshuffle(images, PATCH).flatten(2).transpose(1, 2)
    return F.smooth_l1_loss(drawn.float(), patches[hidden], beta=0.5)


def info_nce(ones: Tensor, twos: Tensor, temperature: float) -> Tensor:
    """InfoNCE in both directions for identities `[heads, B, width]` of two views, mean over heads and pictures."""
    likeness = ones @ twos.transpose(1, 2) / temperature
    partner = torch.arange(ones.shape[1], device=ones.device).expand(len(ones), -1)
    return (F.cross_entropy(likeness, partner) + F.cross_entropy(likeness.transpose(1, 2), partner)) / 2


def normalise(images: Tensor) -> Tensor:
    """Images `[B, 3, h, w]` in 0..1 as the encoder reads them: minus ImageNet's mean, over its deviation."""
    return (images - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)


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
    return normalise((images * light).clamp(0, 1)).to(DEVICE)


def _hide(batch: int, share: float, generator: torch.Generator) -> Tensor:
    """Bool `[batch, 64]`: a share of the patches, in clumps of about 2x2."""
    coarse = torch.rand(batch, 1, GRID // 2 + 1, GRID // 2 + 1, generator=generator)
    shifts = torch.randint(2, (2,), generator=generator).tolist()
    clumps = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., shifts[0] :, shifts[1] :][..., :GRID, :GRID]
    noise = clumps.flatten(1) + 0.35 * torch.rand(batch, GRID * GRID, generator=generator)
    chosen = noise.argsort(dim=1)[:, : round(share * GRID * GRID)]
    return torch.zeros(batch, GRID * GRID, dtype=torch.bool).scatter_(1, chosen, True).to(DEVICE)


@dataclass(frozen=True)
class PatchTrainingConfig:
    """How the patches are trained."""

    budget: Budget = field(default=Budget(3000, batch=64, learning_rate=1e-3, weight_decay=0.05, averaging=0.998))
    temperature: float = 0.1
    """Of the softmax over possible relatives."""
    closeness: float = 2.0
    """Final weight of the patches' cosine distance to their relative, beside that of picking it (1)."""
    patience: tuple[float, float] = (0.25, 0.6)
    """Between which shares of the steps that weight rises from 0; from the start it would merge all toys for good."""
    toys: int = 12
    """Patches of 64 that are asked for the toys."""
    surface: int = 40
    """Patches of 64 that are asked for the surface."""
    whole: float = 0.25
    """Weight of whole pictures picking each other, as in the pairs stage."""

    def closeness_at(self, step: int) -> float:
        """The weight of closeness at `step`."""
        first, last = self.patience
        return self.closeness * min(1.0, max(0.0, (step / self.budget.steps - first) / (last - first)))


def repainted(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same kinds of toys in other colours, in other places and sizes on another surface."""
    other, colours = moved(scene, rng), tuple(COLOURS)
    things = tuple(replace(thing, colour=colours[rng.integers(len(colours))]) for thing in other.things)
    return replace(other, things=things)


def same_surface(scene: Scene, rng: np.random.Generator, **kwargs: Any) -> Scene:
    """Other toys on another piece of the same kind of surface; `kwargs` as for `sample_scene`."""
    return replace(sample_scene(rng, **kwargs), background=scene.background)


class _PooledStudent(nn.Module):
    """A student with one learned query for the toys and one for the surface."""

    def __init__(self, student: Student):
        super().__init__()
        self.student = student
        torch.manual_seed(0)
        self.queries = nn.Parameter(0.02 * torch.randn(2, student.encoder.config.hidden_size))

    def pool(self, patches: Tensor) -> Tensor:
        """Pictures as their toys and as their surface, `[2, B, d]`, from patches `[B, 64, d]`."""
        weight = (patches @ self.queries.T).softmax(dim=1)
        return torch.einsum("bnq,bnd->qbd", weight, patches)


def train_patches(
    student: Student,
    pictures: RenderedScenes,
    relatives: tuple[RenderedScenes, RenderedScenes],
    folder: Path,
    config: PatchTrainingConfig = PatchTrainingConfig(),
) -> Student:
    """Train a student's patches and return its average; resumes from the checkpoint in `folder`.

    `relatives` show, one for one, the toys of `pictures` repainted and other toys on the same surface.
    """
    pooled = _PooledStudent(student.requires_grad_(True)).to(DEVICE)
    repaints, surfaces = relatives

    def loss(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(pictures.pixels), generator=generator)[: config.budget.batch]
        views = [random_view(source.batch(chosen), generator) for source in (pictures, repaints, surfaces)]
        with half():
            overall, patches = pooled.student(torch.cat(views))
        overall, patches = overall.float(), patches.float()
        own, toys, surface = patches.chunk(3)
        (own_toys, toys_pooled, _), (own_surface, _, surface_pooled) = (p.chunk(3) for p in pooled.pool(patches))
        closeness, pairs = config.closeness_at(step), 2 * config.budget.batch
        ones, twos = pooled.student.identities(overall[:pairs], patches[:pairs]).chunk(2, dim=1)
        pairings = (
            (own, toys_pooled, config.toys),
            (toys, own_toys, config.toys),
            (own, surface_pooled, config.surface),
            (surface, own_surface, config.surface),
        )
        contrasts = [_patch_contrast(*pairing, closeness, config.temperature) for pairing in pairings]
        return 0.5 * torch.stack(contrasts).sum() + config.whole * info_nce(ones, twos, temperature=0.15)

    return optimise(pooled, loss, config.budget, folder / "encoder-patches.pt").student


def _patch_contrast(patches: Tensor, relatives: Tensor, asked: int, closeness: float, temperature: float) -> Tensor:
    """How badly patches `[B, 64, d]` pick, and how far they are from, their pictures' relatives `[B, d]`.

    Mean over the `asked` patches of each picture that pick best.
    """
    likeness = F.normalize(patches, dim=-1) @ F.normalize(relatives, dim=-1).T
    picture = torch.arange(len(patches), device=patches.device)
    loss_each = -(likeness / temperature).log_softmax(dim=-1)[picture, :, picture]
    lowest = loss_each.topk(asked, dim=1, largest=False)
    distance = 1 - likeness[picture, :, picture].gather(1, lowest.indices)
    return (lowest.values + closeness * distance).mean()
