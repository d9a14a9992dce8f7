"""What a sampler may ask of a diffusion model, and the part of the answer that pixel and latent models share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from engine.priors.schedule import Schedule

Network = TypeVar("Network", bound=nn.Module)


def frozen(network: Network) -> Network:
    """The network itself, for drawing only: its weights want no gradients and lie channels last, which is faster."""
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)


class Prediction(NamedTuple):
    """What a denoiser says about x_t; the first two always satisfy x_t = sqrt(abar) x0 + sqrt(1 - abar) eps."""

    x0: Tensor
    """[B, C, h, w], the posterior mean of the clean state."""
    eps: Tensor
    """[B, C, h, w], the noise that goes with it."""
    spread: Tensor | None = None
    """[B, C, h, w] in [-1, 1], where a learned reverse variance lies between its bounds; None when it is fixed."""


class Prior(Protocol):
    """A distribution over images given by a denoiser. States are float32, `shape` without the batch, on `device`."""

    shape: tuple[int, int, int]
    image_size: int
    device: torch.device
    dtype: torch.dtype

    def timesteps(self, n: int) -> Tensor:
        """[n] int64, descending: the noise levels that n steps visit."""

    def noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """[B, *shape] standard normal, row i drawn from generator i alone."""

    def denoise(self, x_t: Tensor, t: int) -> Prediction:
        """Predict the clean state from x_t [B, *shape]; differentiable in x_t."""

    def step(
        self, prediction: Prediction, t: int, t_prev: int, x_t: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """One reverse step from level t to t_prev (-1: clean): [B, *shape]."""

    def sigma(self, t: int, t_prev: int) -> float:
        """Standard deviation of the reverse posterior q(x_prev | x_t, x0); 0 at the last step."""

    def decode(self, z: Tensor) -> Tensor:
        """States [B, *shape] to images [B, 3, H, W] in [0, 1]; differentiable."""


class DiffusionPrior(ABC):
    """A network and its noise schedule; subclasses say how the network is called and how a state becomes an image.

    Parameters
    ----------
    schedule
        The noise schedule the network was trained with.
    shape
        Shape of one state, (C, h, w).
    image_size
        Side of a decoded image in pixels.
    device, dtype
        Where the network lives and the precision of its weights. States stay float32 whatever `dtype` is.
    eta
        Noise of a reverse step: 1 is ancestral (DDPM, Algorithm 1 of paper 000), 0 is deterministic DDIM.
    """

    def __init__(
        self,
        schedule: Schedule,
        shape: tuple[int, int, int],
        image_size: int,
        device: torch.device,
        dtype: torch.dtype,
        eta: float = 1.0,
    ):
        self.schedule = schedule
        self.shape = shape
        self.image_size = image_size
        self.device = device
        self.dtype = dtype
        self.eta = eta

    @abstractmethod
    def network(self, x_t: Tensor, t: int) -> Tensor:
        """The network's raw output for x_t [B, *shape] at level t, in the network's own precision."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """States [B, *shape] to images [B, 3, H, W] in [0, 1]; differentiable."""

    def timesteps(self, n: int) -> Tensor:
        """[n] int64, descending: the noise levels that n steps visit."""
        return self.schedule.timesteps(n)

    def noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """[B, *shape] standard normal, row i drawn from generator i alone: the same row in any batch."""
        rows = [torch.randn(self.shape, generator=generator, device=generator.device) for generator in generators]
        return torch.stack([row.to(self.device) for row in rows])

    def denoise(self, x_t: Tensor, t: int) -> Prediction:
        """Predict the clean state from x_t [B, *shape] at level t; differentiable in x_t."""
        return Prediction(*self.schedule.predict(self.network(x_t.to(self.dtype), int(t)).float(), x_t, int(t)))

    def step(
        self, prediction: Prediction, t: int, t_prev: int, x_t: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """One reverse step from level t to t_prev (-1: clean).

        Returns
        -------
        [B, *shape]: a draw from q(x_prev | x_t, x0) for eta = 1, its deterministic limit for eta = 0.
        """
        mean, sigma = self.transition(prediction, t, t_prev)
        return mean if self.eta == 0 or t_prev < 0 else mean + sigma * self.noise(generators)

    def transition(self, prediction: Prediction, t: int, t_prev: int) -> tuple[Tensor, Tensor | float]:
        """Mean [B, *shape] and standard deviation of the normal law that `step` draws from."""
        t, t_prev = int(t), int(t_prev)
        mean = self.schedule.mean(prediction.x0, prediction.eps, t, t_prev, self.eta)
        if self.eta == 0 or t_prev < 0:
            return mean, 0.0
        if prediction.spread is None:
            return mean, self.eta * self.schedule.sigma(t, t_prev)
        return mean, self.eta * self.schedule.learned_sigma(prediction.spread, t, t_prev)

    def sigma(self, t: int, t_prev: int) -> float:
        """Standard deviation of the reverse posterior q(x_prev | x_t, x0); 0 at the last step."""
        return self.schedule.sigma(int(t), int(t_prev))
