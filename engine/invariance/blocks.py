"""Members behind a diffusion prior, in the noise of a middle level: a Gibbs sampler with an exact constraint.

f(G(z)) of pure noise z is so crooked that a Newton step from it leads nowhere. With less noise the way to the image is
shorter and f smoother. A state of level t is x_t = a X + s N, with X a clean state of the prior, N ~ N(0, I) and
a^2 + s^2 = 1, and its image is G_t(x_t), the steps that are left of the ODE sampler. G_t(x_t) has the prior's law as X
has, so members of the invariant set are the pairs (X, N) with f(G_t(a X + s N)) = y, under p(X) phi(N). Two moves
leave that law as it is:

* N given X: the level set of a function of standard normal noise, along which `engine.invariance.walk` moves exactly;
* X given x_t: a draw from p(X | x_t) by the ancestral sampler from level t, and N = (x_t - a X) / s. The state and
  with it the image and the response stay as they are, so this is free of the constraint.

As X and N take turns, the image moves as far as the prior lets it. Both samplers go in finitely many steps and the
denoiser is learned: up to that, the walk has the prior's law given f = y, whatever it started from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from engine.invariance.generator import DeterministicGenerator
from engine.invariance.levelset import LevelSet


class NoiseLevelSet(LevelSet):
    """{N : f(G_t(a X + s N)) = y} for clean states X, of which each latent N has its own.

    Parameters
    ----------
    generator
        G_t: the steps that are left from a level of the ODE sampler.
    respond
        f of images [n, 3, height, width], to [n, m].
    target
        y, [m].
    clean
        X, [n, *shape]: states of the prior to start from.
    batch
        Latents that go through f together; None: all.
    """

    def __init__(
        self,
        generator: DeterministicGenerator,
        respond: Callable[[Tensor], Tensor],
        target: Float[Tensor, " m"],
        clean: Float[Tensor, "n *shape"],
        batch: int | None = None,
    ):
        super().__init__(lambda noise, clean: respond(generator(self.states(noise, clean))), target, batch, clean)
        self.generator = generator
        self.signal, self.noise = math.sqrt(generator.signal), math.sqrt(1 - generator.signal)

    def states(self, noise: Float[Tensor, "n *shape"], clean: Tensor | None = None) -> Float[Tensor, "n *shape"]:
        """x_t = a X + s N."""
        clean = self.context if clean is None else clean
        assert clean is not None
        return self.signal * clean + self.noise * noise

    @torch.no_grad()
    def refresh(self, noise: Float[Tensor, "n *shape"], random: torch.Generator) -> Float[Tensor, "n *shape"]:
        """Draw X anew given x_t, and return the N that goes with it: `refresh` of `engine.invariance.walk.walk`."""
        states = self.states(noise)
        parts = [self._ancestral(part, random) for part in states.split(self.batch or len(states))]
        self.context = torch.cat(parts)
        return (states - self.signal * self.context) / self.noise

    def _ancestral(self, state: Tensor, random: torch.Generator) -> Tensor:
        prior = self.generator.prior
        for t, t_prev in itertools.pairwise(self.generator.levels):
            prediction = prior.denoise(state, t)
            self.generator.count(len(state))
            state = prior.schedule.mean(prediction.x0, prediction.eps, t, t_prev, eta=1.0)
            if t_prev >= 0:
                fresh = torch.randn(state.shape, generator=random, dtype=state.dtype).to(state)
                state = state + prior.schedule.sigma(t, t_prev) * fresh
        return state
