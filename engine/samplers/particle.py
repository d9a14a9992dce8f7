"""`energydps-smc`: samples from the tilt p exp(beta s) itself, with EnergyDPS as the proposal of a particle filter.

EnergyDPS follows the score of a predicted image, which is not the score of the image that will come of it, so its law
is not the tilt (paper 000 leaves this open). Here many particles take its steps and are weighted for what the steps got
wrong: twisted sequential Monte Carlo (Wu et al. 2023, arXiv 2306.17775). At noise level t the filter's target is

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
from torch import Tensor

from engine.errors import BlindspotError
from engine.priors.base import DiffusionPrior
from engine.samplers.base import OnStep, Samples, Score, StepEvent, announce, sample_generators
from engine.samplers.look import GUIDANCES, Look, Observer, require_finite
from engine.samplers.memory import Pieces
from engine.samplers.resampling import choose, effective_size, systematic


class Cloud(NamedTuple):
    """Where n particle filters ended."""

    images: Tensor
    """[n, particles, 3, H, W] in [0, 1]."""
    scores: Tensor
    """[n, particles]."""
    log_weights: Tensor
    """[n, particles]; the weights of each filter sum to 1."""
    log_partition: Tensor
    """[n], each filter's estimate of log E_p exp(beta s), whose exponential is unbiased."""
    trace: Tensor
    """[steps, n], at each step the score of the filter's heaviest particle."""


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
    bf16: bool = False
    """Compute in bfloat16; the final images and their scores are in full precision all the same."""
    checkpointing: bool = False
    """Recompute activations on the gradient's way back: less memory, more time."""
    together: int | None = 1
    """Filters that go in one go, None for all; see `EnergyDPS.together`."""

    def __post_init__(self) -> None:
        if self.guidance not in GUIDANCES:
            raise BlindspotError(f"Guidance {self.guidance!r} is unknown: choose from {', '.join(GUIDANCES)}.")
        if not math.isfinite(self.strength):
            raise BlindspotError(f"The strength must be a finite number, not {self.strength}.")
        if self.together is not None and self.together < 1:
            raise BlindspotError(f"At least 1 filter goes at a time, not {self.together}.")
        if self.particles < 1 or self.tempering < 0 or not 0 <= self.threshold <= 1:
            raise BlindspotError(
                f"A filter of {self.particles} particles with tempering {self.tempering:g} and threshold "
                f"{self.threshold:g} makes no sense: at least 1, at least 0, and between 0 and 1."
            )

    def sample(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Samples:
        """Draw n independent images from the tilt, as nearly as the particles allow.

        Parameters
        ----------
        score
            Differentiable, images [n, 3, H, W] in [0, 1] to [n].
        n
            Number of images, each from its own filter.
        seed
            Image i depends on (seed, i) alone: it is the same in any batch.
        on_step
            Hears of every step, with the heaviest particle of each filter, and may cancel.

        Raises
        ------
        BlindspotError
            If n is not positive, the steps do not fit the prior, or the guidance left the real numbers.
        Cancelled
            If `on_step` said so.
        """
        cloud, generators = self._filter(score, n, seed, on_step)
        chosen = choose(cloud.log_weights, _uniforms(generators).to(cloud.log_weights.device))
        rows = torch.arange(n, device=chosen.device)
        return Samples(cloud.images[rows, chosen], cloud.scores[rows, chosen], cloud.trace)

    def filter(self, score: Score, n: int, seed: int = 0, on_step: OnStep | None = None) -> Cloud:
        """All particles of n independent filters with their weights; arguments and errors as in `sample`.

        Weighted averages over a filter have less variance than the one particle that `sample` draws from it.
        """
        return self._filter(score, n, seed, on_step)[0]

    def _filter(self, score: Score, n: int, seed: int, on_step: OnStep | None) -> tuple[Cloud, list[torch.Generator]]:
        if n < 1:
            raise BlindspotError(f"{n} samples were asked for: ask for at least 1.")
        levels = [*self.prior.timesteps(self.steps).tolist(), -1]
        pieces = Pieces(group=self.together and self.together * self.particles)
        observer = Observer(self.prior, score, self.guidance, self.bf16, self.checkpointing, pieces)
        generators = sample_generators(seed, n)
        each = [generator for generator in generators for _ in range(self.particles)]
        state = self.prior.noise(each)
        population = Population(torch.zeros(n, self.particles, device=state.device))
        trace = []
        for index, (t, t_prev) in enumerate(itertools.pairwise(levels)):
            twist = self.strength * self.prior.schedule.signal(t) ** self.tempering
            look = observer.look(state, t, guided=twist != 0 and t_prev >= 0)
            when = f"at step {index + 1} of {self.steps} with strength {self.strength:g}"
            require_finite(state, look.scores, when, "lower the strength")
            population.twist(twist * look.scores)
            trace.append(self._report(look, population, index, on_step))
            look = look.rows(population.resample(self.threshold, _uniforms(generators)))
            state, log_ratio = self._propose(look, t, t_prev, twist, each)
            population.add(log_ratio)
        images, scores = observer.finish(state)
        population.twist(self.strength * scores)
        grouped = (n, self.particles)
        cloud = Cloud(images.unflatten(0, grouped), scores.unflatten(0, grouped), *population.end(), torch.stack(trace))
        return cloud, generators

    def _propose(
        self, look: Look, t: int, t_prev: int, twist: float, generators: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """The next state [n * particles, *shape] and log p / proposal [n * particles] of having gone there."""
        mean, sigma = self.prior.transition(look.prediction, t, t_prev)
        if t_prev < 0:
            return mean, torch.zeros_like(look.scores)
        noise = self.prior.noise(generators)
        if look.gradient is None:
            return mean + sigma * noise, torch.zeros_like(look.scores)
        drift = twist * sigma * look.gradient
        # Channel by channel: the sum of a lone sample, all at once, would round by the number of threads.
        log_ratio = -(drift * (noise + drift / 2)).flatten(2).sum(dim=2).sum(dim=1)
        return mean + sigma * (drift + noise), log_ratio

    def _report(self, look: Look, population: Population, index: int, on_step: OnStep | None) -> Tensor:
        """Announce the heaviest particle of each filter; their scores [n]."""
        heaviest = population.heaviest()
        scores, images = look.scores[heaviest], look.images[heaviest]
        announce(on_step, StepEvent(index + 1, self.steps, scores, lambda: images))
        return scores


class Population:
    """The log-weights of n filters; particles are numbered through, filter by filter.

    Parameters
    ----------
    log_weights
        [n, particles] of the start, zeros.
    """

    def __init__(self, log_weights: Tensor):
        self.log_weights = log_weights
        self.log_twist = torch.zeros_like(log_weights)
        self.log_partition = torch.zeros_like(log_weights[:, 0])

    def twist(self, log_twist: Tensor) -> None:
        """Replace the last twist by this one, [n * particles]."""
        log_twist = log_twist.reshape(self.log_weights.shape)
        self.log_weights = self.log_weights + log_twist - self.log_twist
        self.log_twist = log_twist

    def add(self, log_ratio: Tensor) -> None:
        """Weight the particles by exp(log_ratio), [n * particles]."""
        self.log_weights = self.log_weights + log_ratio.reshape(self.log_weights.shape)

    def heaviest(self) -> Tensor:
        """[n], number of each filter's heaviest particle."""
        return self._numbers(self.log_weights.argmax(dim=1, keepdim=True)).flatten()

    def resample(self, threshold: float, offsets: Tensor) -> Tensor:
        """Make the weights equal in filters that are worth less than a share of their particles.

        Parameters
        ----------
        threshold
            The share.
        offsets
            [n], uniform in [0, 1).

        Returns
        -------
        [n * particles] int64: the number of the particle that takes each place.
        """
        n, particles = self.log_weights.shape
        poor = (effective_size(self.log_weights) < threshold * particles)[:, None]
        stay = torch.arange(particles, device=poor.device).expand(n, -1)
        ancestors = torch.where(poor, systematic(self.log_weights, offsets.to(poor.device)), stay)
        mean = self._log_mean()
        self.log_partition = self.log_partition + torch.where(poor[:, 0], mean, 0.0)
        self.log_weights = torch.where(poor, 0.0, self.log_weights)
        self.log_twist = self.log_twist.gather(1, ancestors)
        return self._numbers(ancestors).flatten()

    def end(self) -> tuple[Tensor, Tensor]:
        """Normalised log-weights [n, particles] and the log of the mean weight of the whole run [n]."""
        return self.log_weights.log_softmax(dim=1), self.log_partition + self._log_mean()

    def _log_mean(self) -> Tensor:
        return self.log_weights.logsumexp(dim=1) - math.log(self.log_weights.shape[1])

    def _numbers(self, places: Tensor) -> Tensor:
        """Places within each filter [n, k] as numbers of particles."""
        n, particles = self.log_weights.shape
        return places + particles * torch.arange(n, device=places.device)[:, None]


def _uniforms(generators: list[torch.Generator]) -> Tensor:
    """[n], one uniform number from each generator."""
    return torch.stack([torch.rand((), generator=generator) for generator in generators])
