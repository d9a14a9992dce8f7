"""A DINOv2-with-registers encoder taught by pictures alone: hidden pixels first, then telling look-alikes apart.

No caption and no ground truth is read. First the model paints the patches hidden from it (SimMIM, Xie et al. 2022). Then
two crops of a picture must find each other among crops of other pictures (InfoNCE). Each batch comes from one k-means
cluster of the features learned so far, so that the others share the surface and the colours and only what the things are
tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import faiss
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from precompute.tabletop.dataset import Pictures
from precompute.tabletop.loop import Budget, device, half, optimise

__all__ = ["Plan", "build", "train"]

PATCH = 8
GRID = 8
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Plan:
    """How the encoder is trained."""

    pixels: Budget = Budget(steps=1000, batch=96, learning_rate=1.5e-3, weight_decay=0.05, averaging=0.998)
    pairs: Budget = Budget(steps=1400, batch=96, learning_rate=1e-3, weight_decay=0.05, averaging=0.998)
    hidden: float = 0.55
    """Share of patches hidden from the student."""
    clusters: int = 32
    """Groups of look-alikes."""
    temperature: float = 0.15
    """Of the softmax over look-alikes."""


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


class Student(nn.Module):
    """The encoder with the heads that only training needs."""

    def __init__(self, encoder: Dinov2WithRegistersModel, width: int = 128):
        super().__init__()
        self.encoder = encoder
        dim = encoder.config.hidden_size
        self.pixels = nn.Linear(dim, 3 * PATCH * PATCH)
        self.names = nn.ModuleList(nn.Sequential(nn.Linear(dim, 256), nn.GELU(), nn.Linear(256, width)) for _ in range(2))

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class token `[B, d]` and patches `[B, 64, d]` of normalised images, the `hidden` patches `[B, 64]` masked."""
        tokens = self.encoder(images, bool_masked_pos=hidden).last_hidden_state
        return tokens[:, 0], tokens[:, 1 + self.encoder.config.num_register_tokens :]

    def identities(self, overall: Tensor, patches: Tensor) -> Tensor:
        """Unit vectors by which pictures are told apart, from the class token and from the mean patch: `[2, B, width]`."""
        heads = zip(self.names, (overall, patches.mean(dim=1)), strict=True)
        return F.normalize(torch.stack([head(x) for head, x in heads]).float(), dim=-1)


def train(pictures: Pictures, folder: Path, plan: Plan = Plan()) -> Dinov2WithRegistersModel:
    """Train on pixels, then on pairs of crops; resumes from the checkpoints in `folder`."""
    student = Student(build()).to(device())

    def paint(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures.pixels), (plan.pixels.batch,), generator=generator)
        images, hidden = _view(pictures.batch(chosen), generator), _hide(plan.pixels.batch, plan.hidden, generator)
        with half():
            _, patches = student(images, hidden)
            drawn = student.pixels(patches[hidden])
        return _painting_error(drawn, images, hidden)

    student = optimise(student, paint, plan.pixels, folder / "encoder-pixels.pt").requires_grad_(True)
    groups = look_alikes(student.encoder, pictures, plan.clusters)

    def tell_apart(step: int, generator: torch.Generator) -> Tensor:
        group = groups[int(torch.randint(len(groups), (), generator=generator))]
        images = pictures.batch(group[torch.randperm(len(group), generator=generator)[: plan.pairs.batch]])
        first, second = _view(images, generator), _view(images, generator)
        hidden = _hide(len(images), plan.hidden, generator) & (torch.rand(len(images), 1, generator=generator) < 0.5).to(device())
        with half():
            overall, patches = student(torch.cat([first, second]), torch.cat([hidden, torch.zeros_like(hidden)]))
            drawn = student.pixels(patches[: len(images)][hidden])
        ones, twos = student.identities(overall, patches).chunk(2, dim=1)
        return _mutual_surprise(ones, twos, plan.temperature) + _painting_error(drawn, first, hidden)

    return optimise(student, tell_apart, plan.pairs, folder / "encoder-pairs.pt").encoder.eval().cpu()


def _painting_error(drawn: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    return F.smooth_l1_loss(drawn.float(), _cut(images)[hidden], beta=0.5)


def _mutual_surprise(ones: Tensor, twos: Tensor, temperature: float) -> Tensor:
    """InfoNCE in both directions for identities `[heads, B, width]` of two views, mean over heads and pictures."""
    likeness = ones @ twos.transpose(1, 2) / temperature
    partner = torch.arange(ones.shape[1], device=ones.device).expand(len(ones), -1)
    return (F.cross_entropy(likeness, partner) + F.cross_entropy(likeness.transpose(1, 2), partner)) / 2


def look_alikes(encoder: Dinov2WithRegistersModel, pictures: Pictures, clusters: int) -> list[Tensor]:
    """Indices of pictures in each k-means cluster of the mean patch and class token, int64 tensors."""
    parts = torch.arange(len(pictures.pixels)).split(512)
    rows = torch.cat([_features(encoder, normalise(pictures.batch(part)).to(device())).cpu() for part in parts])
    rows = (rows - rows.mean(dim=0)) / rows.std(dim=0)
    kmeans = faiss.Kmeans(rows.shape[1], clusters, niter=20, seed=0, max_points_per_centroid=len(rows))
    kmeans.train(rows.numpy())
    nearest = torch.from_numpy(kmeans.index.search(rows.numpy(), 1)[1][:, 0])
    return [group for group in (torch.nonzero(nearest == k)[:, 0] for k in range(clusters)) if len(group) > 1]


@torch.no_grad()
def _features(encoder: Dinov2WithRegistersModel, images: Tensor) -> Tensor:
    """Class token and mean patch of the last four blocks, summed over blocks: `[B, 2 d]`."""
    with half():
        states = encoder(images, output_hidden_states=True).hidden_states[-4:]
        tokens = sum(encoder.layernorm(state) for state in states).float()
    return torch.cat([tokens[:, 0], tokens[:, 1 + encoder.config.num_register_tokens :].mean(dim=1)], dim=1)


def normalise(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _cut(images: Tensor) -> Tensor:
    """Images `[B, 3, 64, 64]` as patches `[B, 64, 192]`."""
    return F.pixel_unshuffle(images, PATCH).flatten(2).transpose(1, 2)


def _view(images: Tensor, generator: torch.Generator) -> Tensor:
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
