"""Measures of the atoms alone: how alike they are, how far from the data, and how stable over seeds.

Coherence is the largest |cosine| between two atoms.

The distance to the convex hull of points that stand for the data is found by fully corrective Frank-Wolfe (Jaggi 2013,
"Revisiting Frank-Wolfe", section 4): take the points furthest towards the target as new corners, then project onto the
hull of the corners so far. Every round bounds the distance from both sides: from above by the distance from the target
t to the current point y of the hull; from below because all of the hull lies behind the plane across t - y through its
furthest corner.

For the stability (Fel et al. 2025, arXiv:2502.12892) the atoms of two dictionaries are matched one to one so that the
sum of their cosines is largest (the Hungarian method):

    stability(D, D') = max over permutations P of (1 / K) sum_i cos(D_i, D'_P(i))
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from engine.dictionary.archetypal import POINTS_PER_CENTROID, RelaxedArchetypal, kmeans
from engine.dictionary.base import Dictionary
from engine.dictionary.tokens import TokenSource, sample
from engine.errors import BlindspotError

BLOCK = 1024
"""Atoms compared with all others at once."""
HULL_BLOCK = 512
"""Targets projected at once."""
ROUNDS = 8
"""Most searches for new corners."""
CORNERS = 4
"""Corners added in each."""
TOLERANCE = 0.01
"""Distances are refined until both bounds are this close, as a share of the points' root mean square norm."""
EXCHANGES = 4
"""Times the number of corners: exchanges of weight per projection onto their hull."""
DENSE = 2048
"""Up to this many atoms all K x K pairs may be matched."""
RIVALS = 32
"""Beyond that, only an atom's most alike ones of the other dictionary, in both directions."""
PAIRS = 32_768
"""Pairs of atoms compared at once."""


class Coherence(NamedTuple):
    """For every atom, the other one that is most alike."""

    value: Float[Tensor, " K"]
    """Largest |cosine| to another atom; its maximum is the dictionary's mutual coherence."""
    nearest: Int[Tensor, " K"]
    """That other atom."""


@torch.no_grad()
def coherence(atoms: Float[Tensor, "K d"]) -> Coherence:
    """The largest |cosine| of each atom to another one; an atom of zeros is alike to none.

    There are at least 2 atoms. K x K cosines are formed block by block, so 32,000 atoms need 130 MB.
    """
    unit = F.normalize(atoms.float(), dim=-1)
    values, nearest = [], []
    for start in range(0, len(unit), BLOCK):
        alike = (unit[start : start + BLOCK] @ unit.T).abs_()
        rows = torch.arange(len(alike), device=unit.device)
        alike[rows, start + rows] = -1
        best = alike.max(dim=-1)
        values.append(best.values.clamp(0, 1))
        nearest.append(best.indices)
    return Coherence(torch.cat(values).cpu(), torch.cat(nearest).cpu())


class HullDistance(NamedTuple):
    """Distances to a convex hull, as shares of the root mean square norm of its points."""

    value: Float[Tensor, " K"]
    """Distance to the nearest point found; never below the true distance."""
    lower: Float[Tensor, " K"]
    """What the true distance cannot be below."""


class AtomsAndHull(NamedTuple):
    """Atoms on the scale of the data, and the points whose hull stands for the data; in the dictionary's units."""

    atoms: Float[Tensor, "K d"]
    points: Float[Tensor, "c d"]
    start: Float[Tensor, "K d"] | None
    """A point of the hull for each atom, or None for the nearest corner."""
    own: bool
    """Whether the points are the dictionary's own candidates."""


def atoms_and_hull(dictionary: Dictionary, source: TokenSource, count: int, seed: int) -> AtomsAndHull:
    """The atoms of a dictionary and the hull to measure them against.

    The scale of an atom is free, since codes make up for it, but a distance needs one. An RA-SAE says itself where its
    atoms lie in the data: W C + Lambda, against the hull of its candidates C, which it leaves by at most delta. Any
    other atom is brought to the root mean square norm of the points, which are k-means centroids of the tokens.

    `source` is what the dictionary reconstructs, `count` and `seed` are the centroids'.
    """
    if isinstance(dictionary, RelaxedArchetypal):
        atoms = dictionary.atoms() / dictionary.log_multiplier.exp()
        return AtomsAndHull(atoms, dictionary.points, dictionary.weights @ dictionary.points, True)
    some = sample(source, POINTS_PER_CENTROID * count, torch.Generator().manual_seed(seed))
    points = kmeans(dictionary.standardise_target(some.to(dictionary.mean.device)), count, seed)
    atoms = F.normalize(dictionary.atoms().float(), dim=-1) * points.square().sum(dim=-1).mean().sqrt()
    return AtomsAndHull(atoms, points, None, False)


@torch.no_grad()
def hull_distance(
    targets: Float[Tensor, "K d"],
    points: Float[Tensor, "c d"],
    start: Float[Tensor, "K d"] | None = None,
    rounds: int = ROUNDS,
    tolerance: float = TOLERANCE,
) -> HullDistance:
    """Distance of each target to the convex hull of points.

    The search begins at a point of the hull for each target, `start`, by default the corner furthest towards it, and
    ends after so many `rounds` (fewer give larger values) or when the bounds are as close as `tolerance`.
    """
    radius = points.float().square().sum(dim=-1).mean().sqrt().clamp_min(1e-12)
    points = points.float() / radius
    found = []
    for first in range(0, len(targets), HULL_BLOCK):
        block = targets[first : first + HULL_BLOCK].float() / radius
        if start is None:
            begin = points[(block @ points.T).argmax(dim=-1)]
        else:
            begin = (start[first : first + HULL_BLOCK] / radius).float()
        found.append(_project(block, points, begin, rounds, tolerance))
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
        weights = _corrected(F.pad(weights, (0, best.shape[1])), arms)
    return HullDistance(value, torch.minimum(lower, value))


def _corrected(weights: Tensor, arms: Tensor) -> Tensor:
    """Convex weights [B, m] of the point nearest to the origin in the hull of arms [B, m, d], starting from others.

    Each exchange moves weight from the arm that hurts most to the one that helps most, as far as it helps or there is.
    """
    gram = arms @ arms.mT
    slope = (gram @ weights[..., None])[..., 0]
    rows = torch.arange(len(arms), device=arms.device)
    for _ in range(EXCHANGES * arms.shape[1]):
        low, gain = slope.min(dim=-1)
        high, lose = slope.masked_fill(weights <= 0, -torch.inf).max(dim=-1)
        turn = gram[rows, gain] - gram[rows, lose]
        curve = turn[rows, gain] - turn[rows, lose]
        step = torch.minimum((high - low) / curve.clamp_min(1e-12), weights[rows, lose]).clamp_min(0)
        weights[rows, gain] += step
        weights[rows, lose] -= step
        slope += step[:, None] * turn
    return weights.clamp_min(0) / weights.clamp_min(0).sum(dim=-1, keepdim=True)


class Stability(NamedTuple):
    """How well dictionaries agree."""

    concept: Float[Tensor, " K"]
    """Cosine of each atom of the first dictionary to its match, mean over the other dictionaries."""
    pairs: Float[Tensor, "S S"]
    """Mean matched cosine of every two dictionaries, float64, 1 on the diagonal."""

    @property
    def mean(self) -> float:
        """Mean over all pairs of dictionaries."""
        rows, columns = torch.triu_indices(len(self.pairs), len(self.pairs), offset=1)
        return float(self.pairs[rows, columns].mean())


def stability(atoms: Sequence[Float[Tensor, "K d"]]) -> Stability:
    """Match the atoms of every two dictionaries and compare them.

    Codes are not negative, so an atom and its opposite are different concepts: the cosine keeps its sign. With more
    than 2,048 atoms each may only be matched with its 32 most alike ones (or the one of its number): the result is then
    a lower bound, in practice the same.

    Raises
    ------
    BlindspotError
        When there are fewer than two, or their shapes differ.
    """
    shapes = {tuple(one.shape) for one in atoms}
    if len(atoms) < 2 or len(shapes) > 1:
        raise BlindspotError(
            f"Stability compares two or more dictionaries of one shape, not {len(atoms)} of "
            f"{len(shapes)}; train the same dictionary with other seeds."
        )
    units = [F.normalize(one.detach().float().cpu(), dim=-1) for one in atoms]
    pairs = torch.eye(len(units), dtype=torch.float64)
    concept = torch.zeros(len(units[0]))
    for i, j in combinations(range(len(units)), 2):
        cosine = (units[i] * units[j][match(units[i], units[j])]).sum(dim=-1)
        pairs[i, j] = pairs[j, i] = cosine.double().mean()
        if i == 0:
            concept += cosine / (len(units) - 1)
    return Stability(concept, pairs)


def match(a: Float[Tensor, "K d"], b: Float[Tensor, "K d"], dense: int = DENSE) -> Int[Tensor, " K"]:
    """The permutation P of unit atoms for which the sum of <a_i, b_P(i)> is largest, all pairs tried if K <= dense."""
    if len(a) <= dense:
        return torch.from_numpy(linear_sum_assignment((a @ b.T).numpy(), maximize=True)[1])
    # Pairs worth considering: the most alike ones, and i with i so that a full matching exists.
    own = torch.arange(len(a))
    forward, backward = _most_alike(a, b), _most_alike(b, a)
    rows = torch.cat([own.repeat_interleave(forward.shape[1]), backward.flatten(), own])
    columns = torch.cat([forward.flatten(), own.repeat_interleave(backward.shape[1]), own])
    keys = torch.unique(rows * len(a) + columns)
    rows, columns = keys // len(a), keys % len(a)
    cosine = [(a[some // len(a)] * b[some % len(a)]).sum(dim=-1) for some in keys.split(PAIRS)]
    cost = 2 - torch.cat(cosine).double()
    graph = csr_matrix((cost.numpy(), (rows.numpy(), columns.numpy())), shape=(len(a), len(a)))
    return torch.from_numpy(min_weight_full_bipartite_matching(graph)[1].astype(np.int64))


def _most_alike(a: Tensor, b: Tensor) -> Tensor:
    """For each row of a, the rows of b with the largest inner products, int64 [K, RIVALS]."""
    count = min(RIVALS, len(b))
    return torch.cat([(part @ b.T).topk(count, dim=-1).indices for part in a.split(BLOCK)])
