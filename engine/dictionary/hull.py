"""How far atoms lie from the data: the distance to the convex hull of points that stand for it.

The nearest point of the hull is found by fully corrective Frank-Wolfe (Jaggi 2013, "Revisiting Frank-Wolfe", section
4): take the points furthest towards the target as new corners, then project onto the hull of the corners so far. Every
round bounds the distance from both sides: from above by the distance from the target t to the current point y of the
hull; from below because all of the hull lies behind the plane across t - y through its furthest corner.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.dictionary.centroids import POINTS_PER_CENTROID, kmeans
from engine.dictionary.tokens import TokenSource, sample

BLOCK = 512
"""Targets projected at once."""
ROUNDS = 8
"""Most searches for new corners."""
CORNERS = 4
"""Corners added in each."""
TOLERANCE = 0.01
"""Distances are refined until both bounds are this close, as a share of the points' root mean square norm."""
SHIFTS = 4
"""Times the number of corners: exchanges of weight per projection onto their hull."""


class HullDistance(NamedTuple):
    """Distances to a convex hull, as shares of the root mean square norm of its points."""

    value: Tensor
    """Distance to the nearest point found, float32 [K]; never below the true distance."""
    lower: Tensor
    """What the true distance cannot be below, float32 [K]."""


class Anchors(NamedTuple):
    """Atoms on the scale of the data, and the points whose hull stands for the data; in the dictionary's units."""

    targets: Tensor
    """[K, d]"""
    points: Tensor
    """[c, d]"""
    start: Tensor | None
    """A point of the hull for each target [K, d], or None for the nearest corner."""
    own: bool
    """Whether the points are the dictionary's own candidates."""


def anchors(dictionary: Dictionary, source: TokenSource, count: int, seed: int) -> Anchors:
    """The atoms of a dictionary and the hull to measure them against.

    The scale of an atom is free, since codes make up for it, but a distance needs one. An RA-SAE says itself where its
    atoms lie in the data: W C + Lambda, against the hull of its candidates C, which it leaves by at most delta. Any
    other atom is brought to the root mean square norm of the points, which are k-means centroids of the tokens.

    Parameters
    ----------
    source
        What the dictionary reconstructs, for k-means.
    count, seed
        Of the centroids.
    """
    if isinstance(dictionary, RelaxedArchetypal):
        targets = dictionary.atoms() / dictionary.log_multiplier.exp()
        return Anchors(targets, dictionary.points, dictionary.weights @ dictionary.points, True)
    some = sample(source, POINTS_PER_CENTROID * count, torch.Generator().manual_seed(seed))
    points = kmeans(dictionary.standardise_target(some.to(dictionary.mean.device)), count, seed)
    atoms = dictionary.atoms().float()
    targets = torch.nn.functional.normalize(atoms, dim=-1) * points.square().sum(dim=-1).mean().sqrt()
    return Anchors(targets, points, None, False)


@torch.no_grad()
def hull_distance(
    targets: Tensor, points: Tensor, start: Tensor | None = None, rounds: int = ROUNDS, tolerance: float = TOLERANCE
) -> HullDistance:
    """Distance of each target [K, d] to the convex hull of points [c, d].

    Parameters
    ----------
    start
        A point of the hull for each target [K, d]; the distance found is at most the distance to it. By default the
        point furthest towards the target.
    rounds
        Most searches for corners, each over all points; fewer give larger values.
    tolerance
        Bounds this close need no further ones.
    """
    radius = points.float().square().sum(dim=-1).mean().sqrt().clamp_min(1e-12)
    points = points.float() / radius
    found = []
    for first in range(0, len(targets), BLOCK):
        block = targets[first : first + BLOCK].float() / radius
        begin = points[(block @ points.T).argmax(dim=-1)] if start is None else start[first : first + BLOCK] / radius
        found.append(_project(block, points, begin.float(), rounds, tolerance))
    return HullDistance(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))


def _project(target: Tensor, points: Tensor, start: Tensor, rounds: int, tolerance: float) -> HullDistance:
    """`hull_distance` of a block of targets, from points of the hull [B, d]."""
    arms = (start - target)[:, None]
    weights = torch.ones_like(target[:, :1])
    value, lower = torch.full_like(target[:, 0], torch.inf), torch.zeros_like(target[:, 0])
    for _ in range(rounds + 1):
        rest = -(weights[:, None] @ arms)[:, 0]
        value = torch.minimum(value, rest.norm(dim=-1))
        reach, best = (rest @ points.T).topk(min(CORNERS, len(points)), dim=-1)
        behind = (rest * target).sum(dim=-1) - reach[:, 0]
        lower = torch.maximum(lower, behind / rest.norm(dim=-1).clamp_min(1e-12))
        if bool((value - lower <= tolerance).all()):
            break
        arms = torch.cat([arms, points[best] - target[:, None]], dim=1)
        weights = _shift(torch.nn.functional.pad(weights, (0, best.shape[1])), arms)
    return HullDistance(value, torch.minimum(lower, value))


def _shift(weights: Tensor, arms: Tensor) -> Tensor:
    """Convex weights [B, m] of the point nearest to the origin in the hull of arms [B, m, d], starting from others.

    Each exchange moves weight from the arm that hurts most to the one that helps most, as far as it helps or there is.
    """
    gram = arms @ arms.mT
    slope = (gram @ weights[..., None])[..., 0]
    rows = torch.arange(len(arms), device=arms.device)
    for _ in range(SHIFTS * arms.shape[1]):
        low, gain = slope.min(dim=-1)
        high, lose = slope.masked_fill(weights <= 0, -torch.inf).max(dim=-1)
        turn = gram[rows, gain] - gram[rows, lose]
        curve = turn[rows, gain] - turn[rows, lose]
        step = torch.minimum((high - low) / curve.clamp_min(1e-12), weights[rows, lose]).clamp_min(0)
        weights[rows, gain] += step
        weights[rows, lose] -= step
        slope += step[:, None] * turn
    return weights.clamp_min(0) / weights.clamp_min(0).sum(dim=-1, keepdim=True)
