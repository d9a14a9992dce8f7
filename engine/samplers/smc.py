"""`energydps-smc`: samples from the tilt p exp(beta s) itself, with EnergyDPS as the proposal of a particle filter.

EnergyDPS follows the score of a predicted image, which is not the score of the image that will come of it, so its law
is not the tilt. Here many particles take its steps and are weighted for what the steps got wrong: twisted sequential
Monte Carlo (arXiv:2306.17775). At noise level t the filter's target is

    gamma_t(x_t, x_t+1, ...) = p(x_T) ... p(x_t | x_t+1) psi_t(x_t),    log psi_t(x) = beta abar_t^tempering s(x0(x)),

where p(. | x) = N(m, sigma^2) is the prior's reverse step. The proposal N(m + sigma d, sigma^2), d = sigma grad log
psi_t, is EnergyDPS with gradient `raw`; a draw m + sigma (d + z) has log p / proposal = -<d, z> - |d|^2 / 2, so that a
particle's log-weight grows by

    log psi_t-1(x_t-1) - log psi_t(x_t) - <d, z> - |d|^2 / 2.

The last psi is exp(beta s) of the final image. So, whatever the twists before it, the weighted particles converge to
the tilt of the prior's own samples as they grow in number, and their mean weight is an unbiased estimate of
E_p exp(beta s).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior
from engine.samplers.base import (
    OnStep,
    Samples,
    Score,
    StepEvent,
    TiltEstimate,
    announce,
    require_finite,
    sample_generators,
    uniforms,
)
from engine.samplers.candidates import choose, effective_size, systematic_resample
from engine.samplers.execution import MicroBatches, Together, samples_together
from engine.samplers.guidance import GUIDANCES, DenoisedState, GuidedDenoiser


class FilterResult(NamedTuple):
    """Where n particle filters ended."""

    images: Float[Tensor, "n particles 3 height width"]
    """In [0, 1]."""
    scores: Float[Tensor, "n particles"]
    """Score of each image."""
    log_weights: Float[Tensor, "n particles"]
    """The weights of each filter sum to 1."""
    log_partition: Float[Tensor, " n"]
    """Each filter's estimate of log E_p exp(beta s), whose exponential is unbiased."""
    trace: Float[Tensor, "steps n"]
    """At each step the score of the filter's heaviest particle."""


@dataclass(frozen=True)
class EnergySMC:
    """Independent particle filters over EnergyDPS, whose law tends to p exp(beta s) as the particles grow in number.

    Each sample has a filter of its own, from which one particle is drawn by its weight.

    Raises
    ------
    BlindspotError
        For settings that make no sense.
    """

    prior: DiffusionPrior
    """The p of the tilt: the law of this prior's samples with this many steps. It needs noise in its steps (eta > 0)
    for particles to differ after they were resampled."""
    steps: int = 50
    """Reverse steps."""
    strength: float = 1.0
    """beta, the tilt's inverse temperature, in units of one over the score's; negative values avoid the score."""
    particles: int = 16
    """Particles of a filter. A sample costs this many of EnergyDPS."""
    guidance: Literal["full", "light"] = "full"
    """How particles are proposed, see `EnergyDPS.guidance`; the law they tend to is the same."""
    tempering: float = 0.5
    """How late the twist comes on: beta_t = beta abar_t^tempering. Far from the image a predicted score says little;
    0, a full twist from the start, wastes particles on it."""
    threshold: float = 0.5
    """Resample when the effective number of particles falls below this share."""
    together: Together = "auto"
    """Filters that are computed in one go; see `EnergyDPS.together`."""

    def __post_init__(self) -> None:
        if self.guidance not in GUIDANCES:
            raise BlindspotError(f"Guidance {self.guidance!r} is unknown: choose from {', '.join(GUIDANCES)}.")
        if not math.isfinite(self.strength):
            raise BlindspotError(f"The strength must be a finite number, not {self.strength}.")
        if isinstance(self.together, int) and self.together < 1:
            raise BlindspotError(f"At least 1 filter goes at a time, not {self.together}.")
        if self.particles < 1 or self.tempering < 0 or not 0 <= self.threshold <= 1:
            raise BlindspotError(
                f"A filter of {self.particles} particles with tempering {self.tempering:g} and threshold "
                f"{self.threshold:g} makes no sense: at least 1, at least 0, and between 0 and 1."
            )

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0) -> Samples:
        """Draw n independent images from the tilt, as nearly as the particles allow; previews show heaviest particles.

        Arguments and errors as in `Sampler.sample`; the score must be differentiable.
        """
        generators = sample_generators(seed, n, first)
        found = self._filter(score, generators, on_step)
        chosen = choose(found.log_weights, uniforms(generators).to(found.log_weights.device))
        rows = torch.arange(n, device=chosen.device)
        return Samples(found.images[rows, chosen], found.scores[rows, chosen], found.trace, self.tilt(found))

    def filter(
        self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None, first: int = 0
    ) -> FilterResult:
        """All particles of n independent filters with their weights; arguments and errors as in `sample`.

        Weighted averages over a filter have less variance than the one particle that `sample` draws from it.
        """
        return self._filter(score, sample_generators(seed, n, first), on_step)

    def tilt(self, found: FilterResult) -> TiltEstimate:
        """What the particles of `filter` say of the tilt, each filter weighted by its estimate of Z."""
        n, particles = found.log_weights.shape
        log_partition = found.log_partition.double()
        log_mean = float(log_partition.logsumexp(dim=0)) - math.log(n)
        ratio = (log_partition - log_mean).exp()
        weights = (found.log_weights.double().exp() * ratio[:, None] / n).flatten()
        return TiltEstimate(
            self.strength,
            log_mean,
            float(ratio.std() / math.sqrt(n)) if n > 1 else math.nan,
            float(weights.sum() ** 2 / weights.square().sum()),
            n * particles,
            self.strength * float((weights * found.scores.double().flatten()).sum()) - log_mean,
        )

    def _filter(self, score: Score, generators: list[torch.Generator], on_step: OnStep | None) -> FilterResult:
        levels = [*self.prior.timesteps(self.steps).tolist(), -1]
        together = samples_together(self.together, self.prior.device)
        batches = MicroBatches(group=together and together * self.particles)
        denoiser = GuidedDenoiser(self.prior, score, self.guidance, batches=batches)
        each = [generator for generator in generators for _ in range(self.particles)]
        state = self.prior.noise(each)
        weights = ParticleWeights(torch.zeros(len(generators), self.particles, device=state.device))
        trace = []
        for index, (t, t_prev) in enumerate(itertools.pairwise(levels)):
            twist = self.strength * self.prior.schedule.signal(t) ** self.tempering
            seen = denoiser.evaluate(state, t, guided=twist != 0 and t_prev >= 0)
            when = f"at step {index + 1} of {self.steps} with strength {self.strength:g}"
            require_finite(state, seen.scores, when, "lower the strength")
            weights.twist(twist * seen.scores)
            heaviest = weights.heaviest()
            scores, images = seen.scores[heaviest], seen.images[heaviest]
            announce(on_step, StepEvent(index + 1, self.steps, scores, images))
            trace.append(scores)
            seen = seen.rows(weights.resample(self.threshold, uniforms(generators)))
            state, log_ratio = self._propose(seen, t, t_prev, twist, each)
            weights.multiply(log_ratio)
        images, scores = denoiser.decode(state)
        weights.twist(self.strength * scores)
        grouped = (len(generators), self.particles)
        images, scores = images.unflatten(0, grouped), scores.unflatten(0, grouped)
        return FilterResult(images, scores, *weights.normalised(), torch.stack(trace))

    def _propose(
        self, seen: DenoisedState, t: int, t_prev: int, twist: float, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """The next state [n * particles, *shape] and log p / proposal [n * particles] of having gone there."""
        mean, sigma = self.prior.transition(seen.prediction, t, t_prev)
        if t_prev < 0:
            return mean, torch.zeros_like(seen.scores)
        noise = self.prior.noise(generators)
        if seen.gradient is None:
            return mean + sigma * noise, torch.zeros_like(seen.scores)
        drift = twist * sigma * seen.gradient
        # Channel by channel: the sum of a lone sample, all at once, would round by the number of threads.
        log_ratio = -(drift * (noise + drift / 2)).flatten(2).sum(dim=2).sum(dim=1)
        return mean + sigma * (drift + noise), log_ratio


class ParticleWeights:
    """The log-weights of n filters, zeros [n, particles] at the start; particles are numbered filter by filter."""

    def __init__(self, log_weights: Float[Tensor, "n particles"]):
        self.log_weights = log_weights
        self.log_twist = torch.zeros_like(log_weights)
        self.log_partition = torch.zeros_like(log_weights[:, 0])

    def twist(self, log_twist: Float[Tensor, " n*particles"]) -> None:
        """Replace the last twist by this one."""
        log_twist = log_twist.reshape(self.log_weights.shape)
        self.log_weights = self.log_weights + log_twist - self.log_twist
        self.log_twist = log_twist

    def multiply(self, log_ratio: Float[Tensor, " n*particles"]) -> None:
        """Multiply the weights by exp(log_ratio)."""
        self.log_weights = self.log_weights + log_ratio.reshape(self.log_weights.shape)

    def heaviest(self) -> Int[Tensor, " n"]:
        """Number of each filter's heaviest particle."""
        return self._numbers(self.log_weights.argmax(dim=1, keepdim=True)).flatten()

    def resample(self, threshold: float, offsets: Float[Tensor, " n"]) -> Int[Tensor, " n*particles"]:
        """Resample filters whose effective size is below a share of their particles, with uniform numbers `offsets`.

        Returns
        -------
        The number of the particle that takes each place.
        """
        n, particles = self.log_weights.shape
        poor = (effective_size(self.log_weights) < threshold * particles)[:, None]
        stay = torch.arange(particles, device=poor.device).expand(n, -1)
        ancestors = torch.where(poor, systematic_resample(self.log_weights, offsets.to(poor.device)), stay)
        self.log_partition = self.log_partition + torch.where(poor[:, 0], self._log_mean(), 0.0)
        self.log_weights = torch.where(poor, 0.0, self.log_weights)
        self.log_twist = self.log_twist.gather(1, ancestors)
        return self._numbers(ancestors).flatten()

    def normalised(self) -> tuple[Float[Tensor, "n particles"], Float[Tensor, " n"]]:
        """Normalised log-weights, and the log of the mean weight of the whole run."""
        return self.log_weights.log_softmax(dim=1), self.log_partition + self._log_mean()

    def _log_mean(self) -> Tensor:
        return self.log_weights.logsumexp(dim=1) - math.log(self.log_weights.shape[1])

    def _numbers(self, places: Tensor) -> Tensor:
        """Places within each filter [n, k] as numbers of particles."""
        n, particles = self.log_weights.shape
        return places + particles * torch.arange(n, device=places.device)[:, None]
