"""The toy mixture as a diffusion prior with an exact denoiser, so that what a sampler gets wrong is its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from engine.klsc.mixture import NEAR, AngularConcept, Mixture
from engine.priors.base import DiffusionPrior
from engine.priors.schedule import Schedule
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.smc import EnergySMC

MIXTURE, CONCEPT = Mixture(), AngularConcept()
BATCH = 20_000


class OraclePrior(DiffusionPrior):
    """DDPM's 1000 linear levels on points of the plane, held as "images" [B, 2, 1, 1]; a reverse step is ancestral.

    Unlike other priors it draws a batch's noise from the first generator alone: a hundred thousand take a minute.
    """

    def __init__(self) -> None:
        schedule = Schedule.from_scheduler(DDPMScheduler(prediction_type="sample", clip_sample=False))
        super().__init__(schedule, (2, 1, 1), 1, torch.device("cpu"), torch.float32)

    def network(self, x_t: Tensor, t: int) -> Tensor:
        """E[x_0 | x_t], exact: `Mixture.denoise` in the form that torch does fastest."""
        signal, root = self.schedule.signal(t), math.sqrt(self.schedule.signal(t))
        variance = signal * MIXTURE.spread**2 + 1 - signal
        pull = root * MIXTURE.spread**2 / variance
        points, means = x_t.flatten(1), torch.tensor(MIXTURE.means)
        exponents = torch.addmm(
            means.square().sum(dim=1) * (-signal / (2 * variance)), points, means.T * (root / variance)
        )
        centres = exponents.softmax(dim=1) @ means
        return (pull * points + (1 - pull * root) * centres).reshape(x_t.shape)

    def decode(self, z: Tensor) -> Tensor:
        """A point is its own image."""
        return z

    def noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """[B, 2, 1, 1] standard normal."""
        return torch.randn((len(generators), *self.shape), generator=generators[0])


def concept_score(points: Tensor) -> Tensor:
    """s of points [B, 2, 1, 1], [B]; `AngularConcept` in the form that torch does fastest."""
    points = points.flatten(1)
    along = points @ torch.tensor(CONCEPT.direction)
    return CONCEPT.height * (1 - along / torch.hypot(*points.unbind(1)).clamp_min(NEAR))


def draw(strength: float, n: int, seed: int = 0, steps: int = 1000) -> np.ndarray:
    """[n, 2] points of EnergyDPS as in Algorithm 1 of arXiv:2605.17504, zeta_i = sigma_i^2, a batch at a time."""
    sampler = EnergyDPS(OraclePrior(), steps=steps, strength=strength, gradient="raw", together=None)
    sizes = [min(BATCH, n - start) for start in range(0, n, BATCH)]
    drawn = [sampler.sample(concept_score, size, seed + i).images.flatten(1) for i, size in enumerate(sizes)]
    return torch.cat(drawn).double().numpy()


def clouds(strength: float, particles: int, total: int, seed: int = 0, steps: int = 1000) -> tuple[np.ndarray, ...]:
    """Points [n, particles, 2] and weights [n, particles] of filters of `energydps-smc`, some `total` particles."""
    sampler = EnergySMC(OraclePrior(), steps, strength, particles, together=None)
    size = BATCH // particles
    drawn = [sampler.filter(concept_score, size, seed + i) for i in range(max(1, round(total / particles / size)))]
    points = torch.cat([cloud.images.flatten(2) for cloud in drawn]).double()
    return points.numpy(), torch.cat([cloud.log_weights for cloud in drawn]).double().exp().numpy()
