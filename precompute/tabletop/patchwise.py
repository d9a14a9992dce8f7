"""The encoder's last lesson: every patch alone must tell what it shows, a toy or a surface.

Each picture has two relatives: one shows the same toys repainted elsewhere, the other shows other toys on the same kind
of surface. Two learned queries pool a picture's patches, and each patch of one picture must pick the other's pooled
patches among those of the batch, and lie close to them. No patch is told to be toy or surface: of 64 patches the twelve
that know the toys best are asked for the toys, the forty that know the surface best for the surface.

No name is ever read, but the renderer draws the relatives, so pairing tells the encoder what counts as the same: the
kind of a toy and of a surface, not its colour, place or light.

Picking is InfoNCE on patches, as in dense contrastive learning (Wang et al. 2021). Closeness squeezes out what
relatives do not share, such as colour, which picking alone leaves in (alignment against uniformity, Wang and Isola
2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from precompute.tabletop.dataset import Pictures
from precompute.tabletop.drawing import COLOURS
from precompute.tabletop.loop import Budget, device, half, optimise
from precompute.tabletop.scenes import Scene, sample_scene
from precompute.tabletop.selfsupervised import Student, elsewhere, mutual_surprise, random_view

__all__ = ["PLAN", "Plan", "repainted", "same_surface", "train"]


@dataclass(frozen=True)
class Plan:
    """How the patches are taught."""

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
    """Weight of whole pictures picking each other, as in the lesson before."""

    def closeness_at(self, step: int) -> float:
        """The weight of closeness at `step`."""
        first, last = self.patience
        return self.closeness * min(1.0, max(0.0, (step / self.budget.steps - first) / (last - first)))


PLAN = Plan()


def repainted(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same kinds of toys in other colours, in other places and sizes on another surface."""
    moved, colours = elsewhere(scene, rng), tuple(COLOURS)
    things = tuple(replace(thing, colour=colours[rng.integers(len(colours))]) for thing in moved.things)
    return replace(moved, things=things)


def same_surface(scene: Scene, rng: np.random.Generator, **kwargs: object) -> Scene:
    """Other toys on another piece of the same kind of surface; `kwargs` as for `sample_scene`."""
    return replace(sample_scene(rng, **kwargs), background=scene.background)


class _Seer(nn.Module):
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


def train(
    student: Student, pictures: Pictures, relatives: tuple[Pictures, Pictures], folder: Path, plan: Plan = PLAN
) -> Student:
    """Teach a student's patches and return its average; resumes from the checkpoint in `folder`.

    `relatives` show, one for one, the toys of `pictures` repainted and other toys on the same surface.
    """
    seer = _Seer(student.requires_grad_(True)).to(device())
    repaints, surfaces = relatives

    def find_relatives(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(pictures.pixels), generator=generator)[: plan.budget.batch]
        views = [random_view(source.batch(chosen), generator) for source in (pictures, repaints, surfaces)]
        with half():
            overall, patches = seer.student(torch.cat(views))
        overall, patches = overall.float(), patches.float()
        own, toys, surface = patches.chunk(3)
        (own_toys, toys_pooled, _), (own_surface, _, surface_pooled) = (p.chunk(3) for p in seer.pool(patches))
        closeness, pairs = plan.closeness_at(step), 2 * plan.budget.batch
        ones, twos = seer.student.identities(overall[:pairs], patches[:pairs]).chunk(2, dim=1)
        return (
            0.5 * _disagreement(own, toys_pooled, plan.toys, closeness, plan.temperature)
            + 0.5 * _disagreement(toys, own_toys, plan.toys, closeness, plan.temperature)
            + 0.5 * _disagreement(own, surface_pooled, plan.surface, closeness, plan.temperature)
            + 0.5 * _disagreement(surface, own_surface, plan.surface, closeness, plan.temperature)
            + plan.whole * mutual_surprise(ones, twos, temperature=0.15)
        )

    return optimise(seer, find_relatives, plan.budget, folder / "encoder-patches.pt").student


def _disagreement(patches: Tensor, relatives: Tensor, asked: int, closeness: float, temperature: float) -> Tensor:
    """How badly patches `[B, 64, d]` pick, and how far they are from, their pictures' relatives `[B, d]`.

    Mean over the `asked` patches of each picture that pick best.
    """
    likeness = F.normalize(patches, dim=-1) @ F.normalize(relatives, dim=-1).T
    picture = torch.arange(len(patches), device=patches.device)
    surprise = -(likeness / temperature).log_softmax(dim=-1)[picture, :, picture]
    lowest = surprise.topk(asked, dim=1, largest=False)
    distance = 1 - likeness[picture, :, picture].gather(1, lowest.indices)
    return (lowest.values + closeness * distance).mean()
