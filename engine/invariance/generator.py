"""Images as a differentiable function of noise: every step of a deterministic sampler, then the decoder.

x = G(z_T) = D(ODE(z_T)) ("EquiDiff", section 3.3.2 and Algorithm 1, lines 8 to 11). The ODE sampler is DDIM with
eta = 0 (arXiv:2010.02502, eq. 12), so that G has no randomness of its own: f(G(z_T)) = y* is an equation in z_T alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior, Prediction
from engine.samplers.base import sample_generators


class DeterministicGenerator:
    """G: standard normal latents z_T to images, through all steps of a prior's ODE sampler; differentiable.

    Row i of the images depends on row i of the latents alone. The prior's own `eta` does not matter.

    Parameters
    ----------
    prior
        The diffusion model, whose weights stay as they are.
    steps
        Steps of the sampler.
    signal
        0: from pure noise. Else from the first of the sampler's levels at which at least this share of the state's
        variance is signal, through the steps that are left; its latents then are states of that level.
    checkpointing
        Keep only the state before each step and compute its activations again in the backward pass. Memory then is
        that of one step however many there are, and a backward pass evaluates every step once more.

    Attributes
    ----------
    evaluations : int
        Evaluations of the network so far, one for each latent and step.
    recomputed : int
        Evaluations that backward passes repeated on top of those, because of the checkpointing.

    Raises
    ------
    BlindspotError
        If the prior has not so many steps, or none is left.
    """

    def __init__(self, prior: DiffusionPrior, steps: int, checkpointing: bool = True, signal: float = 0.0):
        self.prior, self.steps, self.checkpointing = prior, int(steps), checkpointing
        levels = [t for t in prior.timesteps(self.steps).tolist() if prior.schedule.signal(t) >= signal]
        if not levels:
            raise BlindspotError(f"None of {steps} steps has a signal of {signal:g} or more: take more steps or less.")
        self.levels = [*levels, -1]
        self.evaluations, self.recomputed = 0, 0
        self._counting = Lock()

    @property
    def signal(self) -> float:
        """Share of variance that is signal in its latents, abar of the first level."""
        return self.prior.schedule.signal(self.levels[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one latent."""
        return self.prior.shape

    def __call__(self, latents: Float[Tensor, "n *shape"]) -> Float[Tensor, "n 3 height width"]:
        """Images in [0, 1] of latents.

        Raises
        ------
        BlindspotError
            If the latents have another shape, or an image is not finite.
        """
        images = self._apply(self.prior.decode, self.clean(latents)).float()
        if not images.isfinite().all():
            row = int((~images.detach().flatten(1).isfinite().all(dim=1)).nonzero()[0])
            raise BlindspotError(
                f"The prior makes no finite image of latent {row + 1}: check the latent and the prior."
            )
        return images

    def clean(self, latents: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
        """Clean states z_0 of latents, not decoded."""
        if latents.shape[1:] != self.shape:
            raise BlindspotError(
                f"The prior's latents have shape {list(self.shape)}, not {list(latents.shape[1:])}: draw new ones."
            )
        state = latents.to(self.prior.device)
        for t, t_prev in zip(self.levels, self.levels[1:], strict=False):
            state = self._apply(partial(self._step, t=t, t_prev=t_prev, seen=[]), state)
        return state

    def noise(self, seed: int, n: int) -> Float[Tensor, "n *shape"]:
        """Draw n standard normal latents; latent i depends on (seed, i) alone."""
        return self.prior.noise(sample_generators(seed, n))

    def count(self, evaluations: int) -> None:
        """Add evaluations of the network that were made outside of the generator."""
        with self._counting:
            self.evaluations += evaluations

    def _step(self, state: Tensor, *, t: int, t_prev: int, seen: list[bool]) -> Tensor:
        """One step of DDIM; `seen` is filled by the first evaluation, so that a repeated one is known as such."""
        with self._counting:
            if seen:
                self.recomputed += len(state)
            else:
                self.evaluations += len(state)
                seen.append(True)
        prediction = self.prior.denoise(state, t)
        return self.prior.schedule.mean(prediction.x0, prediction.eps, t, t_prev, eta=0.0)

    def _apply(self, function: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled() and state.requires_grad:
            return checkpoint(function, state, use_reentrant=False, preserve_rng_state=False)
        return function(state)


class CountedPrior:
    """A prior that counts its evaluations, one for each state, and else is the one it was made of."""

    def __init__(self, prior: DiffusionPrior):
        self._prior, self._counting, self.evaluations = prior, Lock(), 0

    def denoise(self, x_t: Tensor, t: int) -> Prediction:
        """Predict the clean states, as the prior does."""
        with self._counting:
            self.evaluations += len(x_t)
        return self._prior.denoise(x_t, t)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)


def response(
    generator: DeterministicGenerator, respond: Callable[[Tensor], Tensor]
) -> Callable[[Float[Tensor, "n *shape"]], Float[Tensor, "n m"]]:
    """f(G(z)): latents to responses, as `engine.invariance.levelset` wants it, of responses to images `respond`."""
    return lambda latents: respond(generator(latents))


def rescale(latents: Float[Tensor, "n *shape"], reference: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *shape"]:
    """Scale each latent back to the norm of its reference, the latent that the optimisation started from.

    A normal latent of d dimensions has a norm close to sqrt(d), and the prior knows no others. DiG-IN
    (arXiv:2311.17833), from which "EquiDiff" takes its Algorithm 1, does this after each step; the thesis omits it.

    Raises
    ------
    BlindspotError
        If a latent is zero, which has no direction.
    """
    norms = latents.flatten(1).norm(dim=1)
    if not (norms > 0).all():
        raise BlindspotError("A latent is zero and cannot be scaled to a norm: start from another one.")
    factors = reference.flatten(1).norm(dim=1) / norms
    return latents * factors.view(-1, *[1] * (latents.ndim - 1))
