"""Along the level set {z : f(z) = y} with the law of z ~ N(0, I) given f(z) = y: constrained Hamiltonian Monte Carlo.

By the co-area formula that law has the density phi(z) |J J^T|^(-1/2) on the set, J the Jacobian of f. A state is a
member z and a momentum v tangent to the set. A step kicks v along the normals, flows for an angle along the great
circle z cos a + v sin a, which keeps the Gaussian's energy exactly, with the kick such that it ends on the set, and
kicks v back into the tangent space. This is a RATTLE integrator with the Gaussian's flow solved exactly (Graham &
Storkey 2017, arXiv:1605.07826; Au, Graham & Thiery 2023, "Manifold lifting"). Flipping v runs it backwards, provided
that the way back finds the same member, which is checked (Zappa, Holmes-Cerfon & Goodman 2018, arXiv:1702.08446), and
what it does to log phi(z) - log |J J^T| / 2 - |v|^2 / 2 is corrected by Metropolis. Momenta are drawn anew for every
step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import BlindspotError
from engine.invariance.levelset import DENSE, LevelSet, OnIteration, gram, solve

Refresh = Callable[[Tensor, torch.Generator], Tensor]
"""Latents [n, *shape] to others for the same images, after the context of `LevelSet` was drawn anew."""
RETURN = 1e-3
"""Distance, as a share of the step's length, within which the way back ends at the same member."""


class Walked(NamedTuple):
    """Where a walk ended."""

    latents: Float[Tensor, "n *shape"]
    residuals: Float[Tensor, " n"]
    """|f(z) - y| of each."""
    acceptance: float
    """Share of steps that were taken."""
    lost: float
    """Share of steps for which no member was found, there or back."""
    trail: Float[Tensor, "kept n *shape"]
    """The states that were asked for, in order."""


class _Member(NamedTuple):
    """Members of the set with what their neighbourhood is like."""

    z: Float[Tensor, "n d"]
    jacobian: Float[Tensor, "n m d"]
    normal: Float[Tensor, "n m m"]
    """J J^T."""
    size: Float[Tensor, " n"]
    """|f(z) - y|."""

    def where(self, chosen: Tensor, other: _Member) -> _Member:
        """These rows where `chosen`, the other's elsewhere."""
        return _Member(*(torch.where(chosen.reshape([-1] + [1] * (one.ndim - 1)), one, two)
                         for one, two in zip(self, other, strict=True)))  # fmt: skip

    def tangent(self, v: Tensor) -> Tensor:
        """v without its part along the normals."""
        along = solve(self.normal, torch.einsum("nmd,nd->nm", self.jacobian, v))
        return v - torch.einsum("nmd,nm->nd", self.jacobian, along)

    def log_density(self, v: Tensor) -> Tensor:
        """log phi(z) - log |J J^T| / 2 - |v|^2 / 2, up to a constant."""
        volume = torch.linalg.slogdet(self.normal.double())[1].to(v)
        return -(self.z.square().sum(dim=1) + v.square().sum(dim=1) + volume) / 2


def walk(
    level: LevelSet,
    start: Float[Tensor, "n *shape"],
    steps: int,
    generator: torch.Generator,
    *,
    angle: float = 0.5,
    tolerance: float = 1e-4,
    every: int = 0,
    newton: int = 12,
    refresh: Refresh | None = None,
    on_iteration: OnIteration | None = None,
) -> Walked:
    """Walk from members of the set, each on its own; after enough steps they have the prior's law given f = y.

    Parameters
    ----------
    level, start
        The set and members of it (`project`).
    steps
        Steps of each walk; every one draws a new momentum.
    angle
        Length of a step as an angle on the prior's sphere: pi / 2 would be a fresh draw if f did not matter.
    tolerance
        Largest |f(z) - y|.
    every
        Keep each n-th state in `trail`; 0: none.
    newton
        Most evaluations of f to find the end of a step.
    refresh
        Called between steps: draws the set's context anew and returns the latents that are then the same images,
        whose Jacobian must be the same too (`engine.invariance.blocks`).

    Raises
    ------
    BlindspotError
        If f has so many responses that J J^T would have to be formed, or no slope at a start.
    """
    if len(level.target) > DENSE:
        raise BlindspotError(
            f"A walk needs the volume |J J^T| of all {len(level.target)} responses: choose at most {DENSE}, or only "
            "project."
        )
    shape, n = start.shape[1:], len(start)
    here = _member(level, start.flatten(1), shape)
    if not (torch.linalg.det(here.normal.double()) > 0).all():
        raise BlindspotError("The response has no slope at a start, so its level set has no tangent: choose others.")
    taken, lost, trail = 0.0, 0.0, []
    for done in range(steps):
        v = here.tangent(torch.randn(here.z.shape, generator=generator, dtype=here.z.dtype).to(here.z))
        there, kicked, found = _flow(level, here, v, angle, shape, tolerance, newton)
        w = there.tangent(kicked)
        back, _, returned = _flow(level, there, -w, angle, shape, tolerance, newton, only_position=True)
        distance = (back.z - here.z).norm(dim=1)
        valid = found & returned & (distance <= RETURN * angle * math.sqrt(here.z.shape[1]))
        ratio = there.log_density(w) - here.log_density(v)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64).to(ratio)
        accept = valid & (uniform.log() < ratio)
        here = there.where(accept, here)
        if refresh is not None and done + 1 < steps:
            here = here._replace(z=refresh(here.z.reshape(n, *shape), generator).flatten(1))
        taken, lost = taken + float(accept.double().mean()), lost + float((~valid).double().mean())
        if every and (done + 1) % every == 0:
            trail.append(here.z.reshape(n, *shape).clone())
        if on_iteration is not None and on_iteration(done + 1, steps, here.size) is False:
            break
    latents = here.z.reshape(n, *shape)
    kept = torch.stack(trail) if trail else latents.new_empty(0, *latents.shape)
    rounds = max(1, steps)
    return Walked(latents, here.size, taken / rounds, lost / rounds, kept)


def _member(level: LevelSet, z: Tensor, shape: torch.Size) -> _Member:
    residual, jacobian = level.linearise(z.reshape(len(z), *shape))
    return _Member(z, jacobian, gram(jacobian), residual.norm(dim=1))


def _flow(
    level: LevelSet,
    member: _Member,
    v: Tensor,
    angle: float,
    shape: torch.Size,
    tolerance: float,
    evaluations: int,
    only_position: bool = False,
) -> tuple[_Member, Tensor, Tensor]:
    """Kick v along the normals so that the great circle ends on the set: the end, v there, and whether it was found.

    The kick's m numbers solve f(z cos a + (v + J^T kick) sin a) = y by Broyden's method from J J^T sin a, which asks f
    and not its gradient. With `only_position` the end's Jacobian is not computed.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    kick = torch.zeros_like(member.normal[:, 0])

    def end(rows: Tensor, kick: Tensor) -> Tensor:
        pushed = torch.einsum("nmd,nm->nd", member.jacobian[rows], kick)
        return cos * member.z[rows] + sin * (v[rows] + pushed)

    def residual(rows: Tensor, kick: Tensor) -> Tensor:
        return level.residual(end(rows, kick).reshape(len(rows), *shape), rows)

    every = torch.arange(len(kick), device=kick.device)
    found = residual(every, kick)
    inverse = torch.linalg.pinv(sin * member.normal)
    for _ in range(evaluations):
        rows = every[(found.norm(dim=1) > tolerance) & found.isfinite().all(dim=1)]
        if not len(rows):
            break
        move = -torch.einsum("nab,nb->na", inverse[rows], found[rows])
        there = residual(rows, kick[rows] + move)
        applied = torch.einsum("nab,nb->na", inverse[rows], there - found[rows])
        kick[rows], found[rows] = kick[rows] + move, there
        denominator = (move * applied).sum(dim=1)
        safe = denominator.abs() > 1e-12 * move.square().sum(dim=1)
        left = torch.einsum("na,nab->nb", move, inverse[rows])
        update = torch.einsum("na,nb->nab", (move - applied) / torch.where(safe, denominator, 1.0)[:, None], left)
        safe &= update.flatten(1).isfinite().all(dim=1)
        inverse[rows] += torch.where(safe[:, None, None], update, 0.0)
    reached = (found.norm(dim=1) <= tolerance) & kick.isfinite().all(dim=1)
    kick = torch.where(reached[:, None], kick, 0.0)
    z = end(every, kick)
    kicked = -sin * member.z + cos * (v + torch.einsum("nmd,nm->nd", member.jacobian, kick))
    if only_position:
        return member._replace(z=z), kicked, reached
    return _member(level, z, shape), kicked, reached
