"""Onto the level set {z : f(z) = y} of a response to standard normal latents: descent, projection, annealed particles.

`descend` is infinite optimisation as printed (EquiDiff, section 3.3.2 and Algorithm 1): a gradient method on the
squared residual. `project` solves the same equation by Gauss-Newton, dz = -J^T (J J^T)^-1 (f(z) - y), which for one
response is one gradient and one division, and converges quadratically. Neither has the prior's law on the set: where
they end depends on where they start and on f's slopes. `anneal` gives starts that are spread as the prior is given f
near y, and `engine.invariance.walk` corrects the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from engine.errors import BlindspotError
from engine.invariance.request import OPTIMISERS

Response = Callable[..., Tensor]
"""Latents [n, *shape] to responses [n, m]; differentiable, row i depends on row i alone. With a context it is given
that too, [n, ...], a row for each latent."""
OnIteration = Callable[[int, int, Tensor], bool | None]
"""Called with the iterations done, all of them, and the residuals [n]; returning False ends the search."""
DENSE = 16
"""Responses up to which the Jacobian is formed, one backward pass each; with more, J J^T is applied by products."""
SHORTEST = 2.0**-10
"""Share of a Gauss-Newton step below which a latent is given up."""


class _PlainAttention:
    """Inside, torch's attention is the one of plain products, the only one that can be differentiated twice.

    Torch's switch is of the whole process, so threads count: the first one turns it and the last one turns it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._switch: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._switch = sdpa_kernel(SDPBackend.MATH)
                self._switch.__enter__()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._switch.__exit__(None, None, None)


_TWICE_DIFFERENTIABLE = _PlainAttention()


class LevelSet:
    """The constraint f(z) = y on latents z ~ N(0, I), and what asking f has cost.

    Parameters
    ----------
    response
        f.
    target
        y, [m].
    batch
        Latents that go through f together; None: all.
    context
        What else f depends on, a row for each latent [n, ...]; f is then a function of its own for every latent, and
        the methods below are told by `rows` which latents they are given; None: all, in order.

    Raises
    ------
    BlindspotError
        If the target is not finite.
    """

    def __init__(
        self,
        response: Response,
        target: Float[Tensor, " m"],
        batch: int | None = None,
        context: Float[Tensor, "n ..."] | None = None,
    ):
        if not target.isfinite().all():
            raise BlindspotError("The response to reach is not a finite number: choose another query or target.")
        self.response, self.target, self.batch = response, target.detach().reshape(-1), batch
        self.context = context
        self.evaluations, self.gradients = 0, 0

    @property
    def scale(self) -> float:
        """Size of the target, in whose units a tolerance is meant; 1 for a target of 0."""
        return float(self.target.norm()) or 1.0

    @torch.no_grad()
    def residual(self, z: Float[Tensor, "n *shape"], rows: Tensor | None = None) -> Float[Tensor, "n m"]:
        """f(z) - y, without gradients."""
        self.evaluations += len(z)
        return torch.cat([self.respond(*part) for part in self._parts(z, rows)]) - self.target

    def linearise(
        self, z: Float[Tensor, "n *shape"], rows: Tensor | None = None
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m d"]]:
        """f(z) - y and the Jacobian J of f, by one backward pass for each response."""
        residuals, slopes = [], []
        for part, *context in self._parts(z, rows):
            variable = part.detach().requires_grad_()
            found = self.respond(variable, *context)
            wanted = found.shape[1]
            if not found.requires_grad:
                raise BlindspotError("The response has no gradient in the latent: choose a differentiable one.")
            each = [
                torch.autograd.grad(found[:, k].sum(), variable, retain_graph=k + 1 < wanted)[0] for k in range(wanted)
            ]
            residuals.append(found.detach() - self.target)
            slopes.append(torch.stack(each, dim=1).flatten(2))
        self.evaluations += len(z)
        self.gradients += len(z) * residuals[0].shape[1]
        return torch.cat(residuals), torch.cat(slopes)

    def newton(
        self, z: Float[Tensor, "n *shape"], rows: Tensor | None = None
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n *shape"]]:
        """f(z) - y and the Gauss-Newton step -J^T (J J^T)^-1 (f(z) - y); zero where f has no slope."""
        if len(self.target) <= DENSE:
            residual, jacobian = self.linearise(z, rows)
            step = -torch.einsum("nmd,nm->nd", jacobian, solve(gram(jacobian), residual))
            return residual, step.reshape(z.shape)
        with _TWICE_DIFFERENTIABLE:
            found = [self._newton_by_products(*part) for part in self._parts(z, rows)]
        residuals, steps = zip(*found, strict=True)
        return torch.cat(residuals), torch.cat(steps)

    def _newton_by_products(self, z: Tensor, *context: Tensor, iterations: int = 20) -> tuple[Tensor, Tensor]:
        """The same by conjugate gradients on J J^T, one backward and one forward product each: J is never formed."""
        variable = z.detach().requires_grad_()
        found = self.respond(variable, *context)
        dual = torch.zeros_like(found, requires_grad=True)
        pulled = torch.autograd.grad(found, variable, dual, create_graph=True)[0]
        residual = found.detach() - self.target
        self.evaluations += len(z)

        def transposed(weights: Tensor) -> Tensor:
            self.gradients += len(z)
            return torch.autograd.grad(found, variable, weights, retain_graph=True)[0]

        def product(weights: Tensor) -> Tensor:  # J (J^T w): the second factor is linear in `dual`, so J is its slope
            self.gradients += len(z)
            return torch.autograd.grad(pulled, dual, transposed(weights), retain_graph=True)[0]

        solution, left = torch.zeros_like(residual), residual.clone()
        direction, size = left.clone(), left.square().sum(dim=1, keepdim=True)
        smallest = 1e-12 * size.clamp_min(1e-30)
        for _ in range(min(iterations, residual.shape[1])):
            image = product(direction)
            curvature = (direction * image).sum(dim=1, keepdim=True)
            moves = torch.where(curvature > 0, size / curvature.clamp_min(1e-30), 0.0)
            solution, left = solution + moves * direction, left - moves * image
            before, size = size, left.square().sum(dim=1, keepdim=True)
            if (size <= smallest).all():
                break
            direction = left + size / before.clamp_min(1e-30) * direction
        return residual, -transposed(solution)

    def _parts(self, z: Tensor, rows: Tensor | None = None) -> Iterator[tuple[Tensor, ...]]:
        """Latents that go through f together, with the context of each."""
        given = (z,) if self.context is None else (z, self.context if rows is None else self.context[rows])
        yield from zip(*(each.split(self.batch or max(1, len(z))) for each in given), strict=True)

    def respond(self, z: Tensor, *context: Tensor) -> Tensor:
        """f(z), once its shape is known to be [n, m]."""
        found = self.response(z, *context)
        if found.ndim != 2 or found.shape[1] != len(self.target):
            raise BlindspotError(
                f"The response has shape {tuple(found.shape)} where [n, {len(self.target)}] is needed."
            )
        return found


class Reached(NamedTuple):
    """Where a search for members ended."""

    latents: Float[Tensor, "n *shape"]
    residuals: Float[Tensor, " n"]
    """|f(z) - y| of each."""
    converged: Bool[Tensor, " n"]
    """Whether that is within the tolerance."""
    iterations: int


def gram(jacobian: Float[Tensor, "n m d"]) -> Float[Tensor, "n m m"]:
    """J J^T."""
    return jacobian @ jacobian.transpose(1, 2)


def solve(matrix: Float[Tensor, "n m m"], values: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Solutions of symmetric systems, zero along directions that the matrix does not have."""
    if matrix.shape[-1] == 1:
        diagonal = matrix[..., 0]
        return torch.where(diagonal > 0, values / diagonal.clamp_min(1e-30), 0.0)
    return (torch.linalg.pinv(matrix, hermitian=True) @ values[..., None]).squeeze(-1)


def project(
    level: LevelSet,
    start: Float[Tensor, "n *shape"],
    tolerance: float = 1e-3,
    iterations: int = 32,
    reach: float | None = None,
    on_iteration: OnIteration | None = None,
) -> Reached:
    """Move latents onto the level set by Gauss-Newton steps, halved where they do not come nearer.

    Parameters
    ----------
    level, start
        The set and where to start.
    tolerance
        Largest |f(z) - y|, in f's own unit.
    iterations
        Most linearisations of f.
    reach
        Longest step; None: half the length sqrt(d) of a typical latent, so that a flat f throws none out of the prior.
    """
    z = start.detach().clone()
    shape = [-1] + [1] * (z.ndim - 1)
    reach = 0.5 * math.sqrt(z[0].numel()) if reach is None else reach
    residual, step = level.newton(z)
    size, share = residual.norm(dim=1), torch.ones(len(z), dtype=z.dtype, device=z.device)
    for done in range(iterations):
        open_rows = (~(size <= tolerance) & (share > SHORTEST)).nonzero().flatten()
        if on_iteration is not None and on_iteration(done, iterations, size) is False:
            break
        if not len(open_rows):
            return Reached(z, size, size <= tolerance, done)
        length = step[open_rows].flatten(1).norm(dim=1).clamp_min(1e-30)
        moves = share[open_rows] * (reach / length).clamp_max(1.0)
        trial = z[open_rows] + moves.reshape(shape) * step[open_rows]
        residual_there, step_there = level.newton(trial, open_rows)
        size_there = residual_there.norm(dim=1)
        better = size_there < size[open_rows]
        chosen = open_rows[better]
        z[chosen], step[chosen], size[chosen] = trial[better], step_there[better], size_there[better]
        share[chosen] = (2 * share[chosen]).clamp_max(1.0)
        share[open_rows[~better]] /= 2
    return Reached(z, size, size <= tolerance, iterations)


def descend(
    level: LevelSet,
    start: Float[Tensor, "n *shape"],
    *,
    optimiser: str = "sgd",
    learning_rate: float = 10.0,
    scale: float = 1.0,
    threshold: float = 0.01,
    steps: int = 512,
    keep_norm: bool = False,
    loss: Callable[[Tensor], Tensor] | None = None,
    on_iteration: OnIteration | None = None,
) -> Reached:
    """Infinite optimisation as printed (EquiDiff, Algorithm 1): a gradient method on lambda |f(z) - y|^2.

    Every latent is a problem of its own; one that reached the threshold is left alone, as in the thesis, where each
    has its own loop.

    Parameters
    ----------
    optimiser, learning_rate, scale, threshold, steps
        The thesis has SGD with eta 10, tau 0.01 on the loss, 512 to 1024 steps, and does not say lambda (`scale`). Its
        table A.2 compares the four `OPTIMISERS`; `shampoo` is pytorch-optimizer's, with a preconditioner per latent.
    keep_norm
        Rescale a latent to its first norm after each step, as DiG-IN (Augustin et al. 2024) does and the thesis does
        not say.
    loss
        Latents [n, *shape] to losses [n] instead of |f(z) - y|^2, for instance with filters (eqs. 3.3, 3.6).
    """
    make = _optimiser(optimiser)
    apart = optimiser == "shampoo"  # which mixes what stands in one tensor
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (start if apart else start[None])]
    norms = start.flatten(1).norm(dim=1).reshape([-1] + [1] * (start.ndim - 1))
    moving = make(leaves, lr=learning_rate)
    ended, done = torch.zeros(len(start), dtype=torch.bool, device=start.device), 0
    for done in range(1, steps + 1):
        z = torch.stack(leaves) if apart else leaves[0]
        before = z.detach().clone()
        losses = loss(z) if loss else (level.respond(z) - level.target).square().sum(dim=1)
        level.evaluations += int((~ended).sum())
        level.gradients += int((~ended).sum())
        ended |= (scale * losses.detach() < threshold) | ~losses.detach().isfinite()
        if on_iteration is not None and on_iteration(done, steps, losses.detach().sqrt()) is False:
            break
        if ended.all():
            break
        moving.zero_grad()
        (scale * losses * ~ended).nan_to_num(0.0, 0.0, 0.0).sum().backward()
        moving.step()
        with torch.no_grad():
            moved = torch.stack(leaves) if apart else leaves[0].clone()
            if keep_norm:
                moved *= norms / moved.flatten(1).norm(dim=1).reshape(norms.shape).clamp_min(1e-30)
            moved[ended] = before[ended]
            for leaf, value in zip(leaves, moved if apart else moved[None], strict=True):
                leaf.copy_(value)
    z = (torch.stack(leaves) if apart else leaves[0]).detach()
    residuals = level.residual(z).norm(dim=1)
    return Reached(z, residuals, scale * residuals.square() < threshold, done)


def _optimiser(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The class of an optimiser."""
    if name not in OPTIMISERS:
        raise BlindspotError(f"There is no optimiser {name!r}: choose one of {', '.join(OPTIMISERS)}.")
    if name != "shampoo":
        return {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}[name]
    try:
        from pytorch_optimizer import Shampoo
    except ImportError:
        raise BlindspotError(
            "The optimiser shampoo needs the package pytorch-optimizer: install it with pip, or choose another."
        ) from None
    return cast("Callable[..., torch.optim.Optimizer]", Shampoo)


def anneal(
    level: LevelSet,
    shape: Sequence[int],
    particles: int,
    sigma: float,
    generator: torch.Generator,
    *,
    moves: int = 2,
    rounds: int = 24,
    dtype: torch.dtype = torch.float32,
    on_iteration: OnIteration | None = None,
) -> Float[Tensor, "particles *shape"]:
    """Latents from about N(0, I) exp(-|f(z) - y|^2 / 2 sigma^2), without a gradient: starts that cover the set.

    A sequential Monte Carlo sampler (Del Moral, Doucet & Jasra 2006): particles of the prior are reweighted for a
    falling sigma, as fast as half of them stay effective, resampled, and moved by preconditioned Crank-Nicolson steps,
    which leave the prior unchanged in any dimension.

    Parameters
    ----------
    sigma
        Where to stop, in f's own unit.
    moves, rounds
        Moves after each resampling, and most reweightings; with too few rounds the particles lie farther from the set.
    """
    z = torch.randn(particles, *shape, generator=generator, dtype=dtype)
    energy = level.residual(z).square().sum(dim=1) / 2
    precision, step = 0.0, 0.5
    for done in range(rounds):
        if on_iteration is not None and on_iteration(done, rounds, (2 * energy).sqrt()) is False:
            break
        if precision >= sigma**-2:
            break
        finer = _next_precision(energy.double(), precision, sigma**-2)
        weights = (-(finer - precision) * energy.double()).softmax(dim=0)
        precision = finer
        offset = torch.rand((), generator=generator, dtype=torch.float64)
        places = (torch.arange(particles, dtype=torch.float64) + offset) / particles
        chosen = torch.searchsorted(weights.cumsum(0).clamp_max(1.0), places).clamp_max(particles - 1)
        z, energy = z[chosen], energy[chosen]
        for _ in range(moves):
            noise = torch.randn(z.shape, generator=generator, dtype=dtype)
            trial = math.sqrt(1 - step**2) * z + step * noise
            there = level.residual(trial).square().sum(dim=1) / 2
            accept = torch.rand(particles, generator=generator) < (precision * (energy - there)).exp()
            z[accept], energy[accept] = trial[accept], there[accept]
            rate = float(accept.float().mean())
            step = min(0.95, max(1e-3, step * math.exp(rate - 0.3)))
    return z


def _next_precision(energy: Tensor, precision: float, last: float) -> float:
    """The largest precision up to `last` at which half of the particles stay effective, by bisection."""

    def effective(candidate: float) -> float:
        weights = (-(candidate - precision) * energy).softmax(dim=0)
        return float(1 / weights.square().sum())

    if effective(last) >= len(energy) / 2:
        return last
    low, high = precision, last
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= len(energy) / 2 else (low, middle)
    return max(low, precision + 1e-12 * last)
